"""For authors' tests: a fake model, checks over every mode and crash, replays of old runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .crosscheck import Report as Report
    from .crosscheck import check as check
    from .fake_model import FakeModel as FakeModel
    from .fake_model import ModelCall as ModelCall
    from .fake_model import ToolUse as ToolUse
    from .journals import rerun as rerun
    from .simulator import Failure as Failure
    from .simulator import Said as Said
    from .simulator import Simulator as Simulator
    from .simulator import ToolCall as ToolCall
    from .store_contract import StoreContract as StoreContract

_HOMES = {
    "Failure": "simulator",
    "FakeModel": "fake_model",
    "ModelCall": "fake_model",
    "Report": "crosscheck",
    "Said": "simulator",
    "Simulator": "simulator",
    "StoreContract": "store_contract",
    "ToolCall": "simulator",
    "ToolUse": "fake_model",
    "check": "crosscheck",
    "rerun": "journals",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'segue.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"segue.testing.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
