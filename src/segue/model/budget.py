"""How much model calls may cost, and how a budget stands."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

#: Money is counted in billionths of a US dollar: whole numbers, so that sums come out even.
NANO: Final = 1_000_000_000
#: The account of an engine's budget: one for all that a store holds.
STORE: Final = "store"


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How much the model calls of a run, of a job or of a whole store may cost: US dollars, tokens, or both.

    Room is reserved before a call and what it did cost is taken off afterwards. A call for which there is no room isn't
    sent: its run waits for what others have reserved, or is held until the budget is raised. Input and output tokens
    count alike. Raises `ValueError` for one that isn't above nothing, or says nothing.
    """

    usd: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.usd is None and self.tokens is None:
            raise ValueError("a budget is in money or tokens: Budget(usd=5) or Budget(tokens=100_000)")
        if isinstance(self.usd, str) or not isinstance(self.tokens, int | None):
            raise ValueError(f"usd of a budget is a number and tokens a whole one, not {self!r}")
        for name, limit in (("usd", self.usd), ("tokens", self.tokens)):
            if limit is not None and not 0 < limit < 1e9 * (1 if name == "usd" else 1e6):
                raise ValueError(f"{name} of a budget must be above nothing and finite, not {limit!r}")


class Amount(msgspec.Struct, frozen=True, array_like=True):
    """Money in nano-dollars, and tokens."""

    nanos: int = 0
    tokens: int = 0

    def plus(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(self.nanos + other.nanos, self.tokens + other.tokens)

    def minus(self, other: Amount) -> Amount:
        """What is left."""
        return Amount(self.nanos - other.nanos, self.tokens - other.tokens)


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """A budget as it is counted; None for no limit."""

    nanos: int | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, budget: Budget) -> Limit:
        """As a store counts it."""
        return cls(None if budget.usd is None else round(budget.usd * NANO), budget.tokens)

    def has_room(self, amount: Amount) -> bool:
        """Whether it isn't above the limit."""
        return (self.nanos is None or amount.nanos <= self.nanos) and (
            self.tokens is None or amount.tokens <= self.tokens
        )

    def raised(self, other: Limit) -> Limit:
        """The higher of both, where this one has a limit or neither has."""
        return Limit(_higher(self.nanos, other.nanos), _higher(self.tokens, other.tokens))


def _higher(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


class Account(msgspec.Struct, frozen=True, array_like=True):
    """A budget that calls are paid from: whose it is (`run:ID`, `job:ID`, `block:…`, `store`), and its first limit."""

    id: str
    limit: Limit


class Reservation(msgspec.Struct, frozen=True):
    """Room for one call, in each of its accounts. `id` is the call's own, the same in every life of its run."""

    id: str
    run: str
    accounts: tuple[Account, ...]
    amount: Amount


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """What a reserved call did cost, nothing where it wasn't paid; its reservation, or its wait for one, is over."""

    id: str
    amount: Amount = Amount()


#: What comes of a wish for room. `waits`: there will be, if what others have reserved turns out cheaper. `short`:
#: there won't, before the budget is raised. `gone`: the run has ended.
Reserved = Literal["reserved", "waits", "short", "gone"]


class Standing(msgspec.Struct, frozen=True):
    """How a budget stands. `waiting`: calls for which there was no room."""

    id: str
    limit: Limit
    spent: Amount = Amount()
    reserved: Amount = Amount()
    waiting: int = 0
