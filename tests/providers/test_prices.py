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


@pytest.mark.parametrize(
    ("model", "cached", "written"),
    [
        ("openai:gpt-5", 0.0625, 0.625),  # stacked
        ("anthropic:claude-haiku-4-5", 0.05, 0.625),  # stacked, and a write costs a quarter more
        ("gemini:gemini-2.5-flash", 0.03, 0.15),  # not stacked: what is cached costs what it costs live
        ("groq:llama-3.3-70b-versatile", 0.59, 0.295),  # not listed: half, but for what is cached
    ],
)
def test_caching_and_batch_stack_where_the_provider_stacks_them(
    prices: PriceList, model: str, cached: float, written: float
):
    calls = 1000
    assert prices.usd(model, "batch", MILLION, 0, MILLION, 0, calls) == pytest.approx(cached)
    assert prices.usd(model, "batch", MILLION, 0, 0, MILLION, calls) == pytest.approx(written)


def test_all_kinds_of_tokens_add_up(prices: PriceList):
    each = [(600, 0, 0, 0), (300, 0, 300, 0), (100, 0, 0, 100), (0, 50, 0, 0)]
    parts = [prices.usd("anthropic:claude-haiku-4-5", "batch", *tokens) for tokens in each]
    assert prices.usd("anthropic:claude-haiku-4-5", "batch", 1000, 50, 300, 100) == pytest.approx(
        sum(part or 0.0 for part in parts)
    )


def test_many_short_prompts_arent_a_long_one(prices: PriceList):
    model = "anthropic:claude-sonnet-4-5"
    assert prices.usd(model, "live", MILLION, 0, 0, 0, 1) == pytest.approx(6.0)
    assert prices.usd(model, "live", MILLION, 0, 0, 0, 1000) == pytest.approx(3.0)


@pytest.mark.parametrize(("lane", "share"), [("live", 1.0), ("2h", 0.7), ("8h", 0.6), ("batch", 0.5)])
def test_the_ways_between_live_and_batch(prices: PriceList, lane: str, share: float):
    assert prices.usd("openai-responses:gpt-5", lane, MILLION, MILLION, 0) == pytest.approx(11.25 * share)
