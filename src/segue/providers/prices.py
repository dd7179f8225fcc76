"""What tokens cost, by the list that comes with genai-prices."""

from __future__ import annotations

from typing import Any

from ..model.errors import MissingExtra

_BATCH = {"processing": "batch"}
_LOCAL = frozenset({"llamacpp", "ollama", "vllm"})


class Prices:
    """A `PriceList`. Models are `gpt-5-mini` or `openai:gpt-5-mini`; one with a URL of its own has no price.

    A batch costs what the list says, half of live where it says nothing.
    """

    def usd(
        self,
        model: str,
        lane: str,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int,
        written_tokens: int = 0,
    ) -> float | None:
        """See `PriceList.usd`."""
        try:
            from genai_prices import Usage
        except ImportError:
            raise MissingExtra("genai-prices", "cli") from None
        if "@http://" in model or "@https://" in model:
            return None
        provider, colon, name = model.partition(":")
        if not colon:
            provider, name = "", model
        if provider in _LOCAL:
            return None
        usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=min(cached_tokens, input_tokens),
            cache_write_tokens=min(written_tokens, max(input_tokens - cached_tokens, 0)),
        )
        live = _price(usage, name, provider, None)
        if live is None or lane != "batch":
            return live
        batch = _price(usage, name, provider, _BATCH)
        return live / 2 if batch is None or batch == live else batch


def _price(usage: Any, model: str, provider: str, context: dict[str, str] | None) -> float | None:
    from genai_prices import calc_price

    try:
        found = calc_price(usage, model, provider_id=provider or None, price_context=context)
    except (LookupError, ValueError):  # not listed; no price for one of the kinds of tokens
        return None
    return float(found.total_price)
