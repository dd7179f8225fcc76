"""Whom model calls go to; one file a provider."""

from .openai import OpenAI
from .prices import Prices
from .registry import Maker, make, resolve

__all__ = ["Maker", "OpenAI", "Prices", "make", "resolve"]
