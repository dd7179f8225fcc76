from __future__ import annotations

import builtins
from decimal import Decimal
from typing import Any

import genai_prices
import pytest

from segue.model.errors import MissingExtra
from segue.ports.provider import PriceList
from segue.providers.prices import Prices

MILLION = 1_000_000


@pytest.fixture
def prices() -> PriceList:
    return Prices()


@pytest.mark.parametrize("model", ["gpt-4.1-mini", "openai:gpt-4.1-mini"])
def test_live(prices: PriceList, model: str):
    assert prices.usd(model, "live", MILLION, MILLION, 0) == pytest.approx(0.40 + 1.60)
    assert prices.usd(model, "live", 0, 0, 0) == 0


def test_cached_tokens_cost_what_cached_ones_cost(prices: PriceList):
    assert prices.usd("openai:gpt-4.1-mini", "live", MILLION, 0, MILLION) == pytest.approx(0.10)
    assert prices.usd("openai:gpt-4.1-mini", "live", MILLION, 0, 2 * MILLION) == pytest.approx(0.10)


def test_a_batch_costs_what_the_list_says(prices: PriceList):
    live = prices.usd("openai:gpt-4.1", "live", MILLION, 0, 0)
    batch = prices.usd("openai:gpt-4.1", "batch", MILLION, 0, 0)
    assert (live, batch) == (pytest.approx(2.0), pytest.approx(1.0))


@pytest.mark.parametrize(("listed", "expected"), [(Decimal("1.3"), 1.3), (Decimal("2"), 1.0), (None, 1.0)])
def test_or_half_where_the_list_says_nothing(
    prices: PriceList, monkeypatch: pytest.MonkeyPatch, listed: Decimal | None, expected: float
):
    class Found:
        def __init__(self, price: Decimal) -> None:
            self.total_price = price

    def calc_price(*args: Any, price_context: Any, **options: Any) -> Found:
        if price_context is None:
            return Found(Decimal(2))
        if listed is None:
            raise LookupError
        return Found(listed)

    monkeypatch.setattr(genai_prices, "calc_price", calc_price)
    assert prices.usd("openai:m", "batch", 1, 1, 0) == expected


@pytest.mark.parametrize(
    "model",
    [
        "",
        "smollm2",
        "nobody:m",
        "openai:smollm2",
        "ollama:gpt-4.1",
        "vllm:gpt-4.1",
        "openai:gpt-4.1@http://127.0.0.1:8080/v1",
    ],
)
@pytest.mark.parametrize("lane", ["live", "batch"])
def test_what_isnt_listed_has_no_price(prices: PriceList, model: str, lane: str):
    assert prices.usd(model, lane, 10, 10, 0) is None


def test_without_the_list(prices: PriceList, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("genai_prices"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match="genai-prices"):
        prices.usd("gpt-4.1", "live", 1, 1, 0)
