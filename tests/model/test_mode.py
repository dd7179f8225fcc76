"""How runs are carried out: what was asked for, and what holds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from segue.model.mode import Batch, Config, Live

BEGUN = Config(model=("m:one", "m:two"), models={"cheap": ("m:small",)}, tags={"team": "a"}, priority=1)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Config(), ""),
        (BEGUN, ""),
        (Config(mode=Live()), ""),
        (Config(models={"cheap": ("m:small",)}), ""),
        (Config(mode=Batch()), "mode live"),
        (Config(model=("m:one",)), "model m:one, m:two"),
        (Config(tags={"team": "b"}, priority=2), "tags {'team': 'a'}, priority 1"),
        (Config(models={"dear": ("m:big",)}), "models {'cheap': ('m:small',)}"),
    ],
)
def test_what_holds_in_place_of_what_is_asked_for(asked: Config, says: str) -> None:
    assert BEGUN.instead_of(asked) == says


def test_a_mode_with_options_is_shown_whole() -> None:
    begun = Config(mode=Batch(max_age=timedelta(hours=1)))
    assert begun.instead_of(Config(mode=Batch())) == f"mode {begun.mode}"
    assert Config(mode=Batch()).instead_of(Config(mode=Live())) == "mode batch"
    assert Config().instead_of(Config(model=("m:one",))) == "model unsaid"
