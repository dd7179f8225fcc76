"""The examples: their tests, run as they stand in their own directory."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from segue.model.errors import ReplayMismatch

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(EXAMPLES)
    yield importlib.import_module("test_app")
    for name in ("app", "test_app"):
        sys.modules.pop(name, None)


async def test_the_app_and_its_tests(tests: ModuleType) -> None:
    found = [value for name, value in vars(tests).items() if name.startswith("test_")]
    assert len(found) == 3
    for test in found:
        assert inspect.iscoroutinefunction(test)
        await test()


async def test_old_runs_notice_a_change(tests: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded runs are of a provider's own replies, live and in batch; they need no key."""
    app = sys.modules["app"]

    class Segue:
        def __getattr__(self, name: str) -> object:
            import segue

            return getattr(segue, name)

        @staticmethod
        async def generate(prompt: str, **how: object) -> object:
            import segue

            return await segue.generate(prompt.replace("Answer", "Reply to"), **how)

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(app, "segue", Segue())
    with pytest.raises(ReplayMismatch) as failed:
        await tests.test_old_runs_still_replay()
    assert "Reply to" in str(failed.value)
    assert failed.value.n == 2
