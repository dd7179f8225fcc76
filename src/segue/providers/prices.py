"""What tokens cost, by the list that comes with genai-prices."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..model.errors import MissingExtra

_LOCAL = frozenset({"llamacpp", "ollama", "vllm"})
#: Names of the list's where they aren't ours.
LISTED = {
    "azure-responses": "azure",
    "gemini": "google",
    "openai-responses": "openai",
    "xai": "x-ai",
}
#: What a way other than live costs of the live price, where the list doesn't say.
_SHARES = {"batch": 0.5, "2h": 0.7, "8h": 0.6}
_PROBE = 1_000_000


class _Rates(NamedTuple):
    """US dollars a token."""

    input: float
    cached: float
    written: float
    output: float


class Prices:
    """A `PriceList`. Models are `gpt-5-mini` or `openai:gpt-5-mini`; one with a URL of its own has no price.

    The list says what a batch costs, and whether what comes from a cache is cheaper still in one. Where it says
    nothing of batches, one costs half, but for what comes from a cache; Responses in the background cost seven
    tenths within two hours and six tenths within eight, about. Tiers for long prompts go by the mean of the calls.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, bool, int], _Rates | None] = {}

    def usd(
        self,
        model: str,
        lane: str,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int,
        written_tokens: int = 0,
        calls: int = 1,
    ) -> float | None:
        """See `PriceList.usd`."""
        try:
            import genai_prices as _  # noqa: F401 - whether it is here
        except ImportError:
            raise MissingExtra("genai-prices", "cli") from None
        if "@http://" in model or "@https://" in model:
            return None
        provider, colon, name = model.partition(":")
        if not colon:
            provider, name = "", model
        if provider in _LOCAL:
            return None
        mean = max(1, input_tokens // max(1, calls))
        rates = self._rates(LISTED.get(provider, provider), name, lane, mean)
        if rates is None:
            return None
        cached = min(cached_tokens, input_tokens)
        written = min(written_tokens, input_tokens - cached)
        return (
            rates.input * (input_tokens - cached - written)
            + rates.cached * cached
            + rates.written * written
            + rates.output * output_tokens
        )

    def _rates(self, provider: str, name: str, lane: str, mean: int) -> _Rates | None:
        live = self._listed(provider, name, mean, batch=False)
        if live is None or lane == "live":
            return live
        if lane == "batch":
            batch = self._listed(provider, name, mean, batch=True)
            if batch is not None and batch != live:
                return batch
        share = _SHARES.get(lane, 1.0)
        return live._replace(
            input=live.input * share, written=live.written * share, output=live.output * share
        )

    def _listed(self, provider: str, name: str, mean: int, *, batch: bool) -> _Rates | None:
        """By the list, for prompts of that length; where it has no price for a kind of tokens, that of others."""
        key = (provider, name, batch, mean)
        if key not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[key] = _looked_up(provider, name, mean, batch)
        return self._known[key]


def _looked_up(provider: str, name: str, mean: int, batch: bool) -> _Rates | None:
    def price(**tokens: int) -> float | None:
        return _price(tokens, name, provider, {"processing": "batch"} if batch else None)

    asked = price(input_tokens=mean)
    both = price(input_tokens=mean, output_tokens=_PROBE)
    if asked is None or both is None:
        return None
    cached = price(input_tokens=mean, cache_read_tokens=mean)
    written = price(input_tokens=mean, cache_write_tokens=mean)
    return _Rates(
        asked / mean,
        (asked if cached is None else cached) / mean,
        (asked if written is None else written) / mean,
        (both - asked) / _PROBE,
    )


def _price(tokens: dict[str, int], model: str, provider: str, context: Any) -> float | None:
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(**tokens), model, provider_id=provider or None, price_context=context)
    except (LookupError, ValueError):  # not listed; no price for one of the kinds of tokens
        return None
    return float(found.total_price)
