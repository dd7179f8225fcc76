"""What model calls cost, and what they would have cost live."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..model.run import REUSED, Usage
from ..ports.provider import PriceList


class ReceiptLine(msgspec.Struct, frozen=True):
    """One model in one lane. Prices are US dollars, None where the price isn't known."""

    model: str
    lane: str
    calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    written_tokens: int
    usd: float | None
    usd_if_live: float | None


class Receipt(msgspec.Struct, frozen=True):
    """Tokens and money by model and lane. `unpriced` are models whose price isn't known: they count as nothing.

    A line of the lane `reused` is of calls that were answered by what had been paid before: it costs nothing, and
    `usd_if_live` has in what such calls cost. `unclaimed` is what was paid for answers that nobody got, such as the
    second one of a late call; `usd` has it in, and `usd_if_live` has none of it.
    """

    lines: list[ReceiptLine]
    usd: float
    usd_if_live: float
    unpriced: list[str]
    unclaimed: list[ReceiptLine] = []
    usd_unclaimed: float = 0.0


def price(uses: Iterable[Usage], prices: PriceList, unclaimed: Iterable[Usage] = ()) -> Receipt:
    """The receipt for model use, summed by model and lane."""
    lines = [_line(use, prices) for use in total(uses)]
    lost = [_line(use, prices) for use in total(unclaimed)]
    usd_lost = sum(line.usd or 0.0 for line in lost)
    return Receipt(
        lines,
        sum(line.usd or 0.0 for line in lines) + usd_lost,
        sum(line.usd_if_live or 0.0 for line in lines),
        sorted({line.model for line in [*lines, *lost] if line.usd is None}),
        lost,
        usd_lost,
    )


def total(uses: Iterable[Usage]) -> list[Usage]:
    """Use summed by model and lane."""
    sums: dict[tuple[str, str], Usage] = {}
    for use in uses:
        key = (use.model, use.lane)
        so_far = sums.get(key)
        sums[key] = use if so_far is None else so_far.joined(use)
    return [sums[key] for key in sorted(sums)]


def _line(use: Usage, prices: PriceList) -> ReceiptLine:
    def usd(lane: str) -> float | None:
        if lane == REUSED:
            return 0.0
        return prices.usd(
            use.model,
            lane,
            use.input_tokens,
            use.output_tokens,
            use.cached_tokens,
            use.written_tokens,
            use.calls,
        )

    return ReceiptLine(
        use.model,
        use.lane,
        use.calls,
        use.input_tokens,
        use.output_tokens,
        use.cached_tokens,
        use.written_tokens,
        usd(use.lane),
        usd("live"),
    )
