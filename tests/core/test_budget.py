"""What calls may cost, and what is said where there is no room."""

from __future__ import annotations

import pytest

from segue.core.budget import (
    UNSEEN,
    Answers,
    account_of,
    allowed,
    cause,
    dollars,
    expected,
    in_words,
    owner,
    priced,
    reason,
    wants_price,
)
from segue.model.budget import NANO, Account, Amount, Budget, Limit, Standing
from segue.model.mode import Config


@pytest.mark.parametrize(
    ("body", "limit", "answers"),
    [
        (b'{"model":"m","messages":[]}', None, 1),
        (b'{"max_tokens":20}', 20, 1),
        (b'{"max_completion_tokens":30,"n":4}', 30, 4),
        (b'{"max_output_tokens":40}', 40, 1),
        (b'{"generationConfig":{"maxOutputTokens":50,"candidateCount":2}}', 50, 2),
        (b'{"max_tokens":null,"n":null}', None, 1),
        (b'{"max_tokens":"many","n":0}', None, 1),
        (b"[1]", None, 1),
        (b"not JSON", None, 1),
    ],
)
def test_what_a_request_allows(body: bytes, limit: int | None, answers: int) -> None:
    assert allowed(body) == (limit, answers)


def test_answers_are_expected_as_they_were_so_far_and_some_more() -> None:
    seen = Answers()
    body = b"x" * 299
    assert expected(body, None) == expected(body, seen) == (100, UNSEEN)
    for tokens in (10, 20, 30):
        seen.saw(tokens)
    assert expected(body, seen) == (100, 40)
    assert expected(b'{"max_tokens":7,"n":2}', seen) == (8, 14)
    assert expected(body, seen, writes=False) == (100, 0)


def test_money_is_rounded_up() -> None:
    assert priced(1e-9 / 3, 5) == Amount(1, 5)
    assert priced(0.25, 0) == Amount(NANO // 4, 0)
    assert priced(None, 3) == Amount(0, 3)
    assert Limit.of(Budget(usd=0.1)) == Limit(NANO // 10, None)


def test_limits() -> None:
    assert Limit(10, None).has_room(Amount(10, 10**9))
    assert not Limit(10, None).has_room(Amount(11))
    assert not Limit(10, 5).has_room(Amount(1, 6))
    assert Limit(10, None).raised(Limit(5, 7)) == Limit(10, 7)
    assert wants_price([Account("a", Limit(tokens=1)), Account("b", Limit(1))])
    assert not wants_price([Account("a", Limit(tokens=1))])


def test_a_reason_names_the_budget_and_the_cure() -> None:
    one = Standing("job:a b", Limit(5 * NANO), Amount(4_980_000_000), Amount(100_000_000))
    said = reason(one, Amount(40_000_000, 12), "a b/3")
    assert said == (
        "no budget is left: that of job 'a b' (job:a b)\n"
        "$4.98 of $5.00 spent, $0.10 reserved; this call may cost $0.04. "
        "Raise it, as with `segue resume --job 'a b' --budget 11`, and all that wait for it go on."
    )
    assert said.startswith(f"{cause('job:a b')}\n")
    assert account_of(said) == "job:a b"
    assert account_of("it waits for a person (run:x)\nno budget is left: that of") == ""
    both = Standing("run:x", Limit(NANO, 1000), Amount(NANO // 2, 990))
    assert "$0.50 of $1.00 and 990 of 1,000 tokens spent" in reason(both, Amount(1, 20), "x")
    assert "`segue resume x --budget 2100tok`" in reason(both, Amount(1, 20), "x")
    assert "`segue resume 'x y' --budget " in reason(both, Amount(1, 20), "x y")


@pytest.mark.parametrize(
    ("account", "words"),
    [("store", "the engine"), ("run:a", "run 'a'"), ("block:a b /x#1.0", "a block of run 'a b'")],
)
def test_whose_it_is(account: str, words: str) -> None:
    assert owner(account) == words
    assert account_of(cause(account)) == account


def test_sums_of_money() -> None:
    shown = [dollars(round(usd * NANO)) for usd in (0, 0.00001, 0.0042, 0.056, 0.5, 1234.5)]
    assert shown == ["$0.00", "$0.00001", "$0.0042", "$0.056", "$0.50", "$1,234.50"]
    assert in_words(Standing("a", Limit(tokens=9))) == "0 of 9 tokens spent"


def test_all_budgets_that_apply_each_once() -> None:
    store = Config(budget=Budget(usd=9)).opened("store")
    job = Config(budget=Budget(tokens=5)).over(store).opened("job:j")
    assert (job.budget, [one.id for one in job.accounts]) == (None, ["store", "job:j"])
    assert job.over(store) == job
    run = Config(budget=Budget(tokens=3)).over(job).opened("run:r")
    assert [one.id for one in run.accounts] == ["store", "job:j", "run:r"]
    again = Config(budget=Budget(tokens=4)).over(run).opened("run:r")
    assert again.accounts[-1] == Account("run:r", Limit(tokens=4))
    assert len(again.accounts) == 3
    assert Config().opened("x") == Config()
