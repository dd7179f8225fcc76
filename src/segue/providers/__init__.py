"""Whom model calls go to; one file a provider, which is loaded when a model of it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import make, resolve

if TYPE_CHECKING:
    from .openai import OpenAI as OpenAI
    from .prices import Prices as Prices

__all__ = ["OpenAI", "Prices", "make", "resolve"]


def __getattr__(name: str) -> Any:
    if name == "OpenAI":
        from .openai import OpenAI

        return OpenAI
    if name == "Prices":
        from .prices import Prices

        return Prices
    raise AttributeError(f"module 'segue.providers' has no attribute {name!r}")
