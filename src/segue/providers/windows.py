"""How long a conversation with a model may be, by the list that comes with genai-prices."""

from __future__ import annotations

from ..model.errors import MissingExtra
from .prices import LISTED


def window(model: str) -> int | None:
    """The context window in tokens of a model such as `openai:gpt-5-mini`; None where it isn't known."""
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        raise MissingExtra("genai-prices", "cli") from None
    provider, _, name = model.partition(":")
    if "@http://" in name or "@https://" in name:
        return None
    try:
        _, found = get_snapshot().find_provider_model(name, None, LISTED.get(provider, provider), None)
    except LookupError:
        return None
    return found.context_window
