"""The budgets of the store in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heapify, heappop, heappush

from ...model.budget import Account, Amount, Limit, Reservation, Reserved, Settlement, Standing


class _Budget:
    __slots__ = ("_order", "id", "limit", "queue", "reserved", "short", "spent")

    def __init__(self, account: Account) -> None:
        self.id, self.limit = account.id, account.limit
        self.spent = self.reserved = Amount()
        self.queue: dict[str, _Wanting] = {}  #: by call, who waits for room
        self.short: dict[str, _Wanting] = {}  #: and who waits for money
        self._order: list[tuple[int, str]] = []  # of the queue, the longest first; some have left it

    def put(self, id: str, one: _Wanting) -> None:
        if one.short:
            self.short[id] = one
            return
        self.queue[id] = one
        heappush(self._order, (one.number, id))
        if len(self._order) > 2 * len(self.queue) + 1000:
            self._order = [(one.number, id) for id, one in self.queue.items()]
            heapify(self._order)

    def first(self) -> tuple[str, _Wanting] | None:
        while self._order:
            number, id = self._order[0]
            one = self.queue.get(id)
            if one is not None and one.number == number:
                return id, one
            heappop(self._order)
        return None

    def has_room(self, amount: Amount) -> bool:
        return self.limit.has_room(self.spent.plus(self.reserved).plus(amount))

    def may_have_room(self, amount: Amount) -> bool:
        return self.limit.has_room(self.spent.plus(amount))


class _Wanting:
    __slots__ = ("amount", "budget", "number", "run", "short")

    def __init__(self, number: int, run: str, budget: _Budget, amount: Amount, short: bool) -> None:
        self.number, self.run, self.budget, self.amount, self.short = number, run, budget, amount, short


class Budgets:
    """Accounts, reservations and calls that wait. `ready` makes a run ready that waited, if it still does."""

    def __init__(self, ready: Callable[[str, float], None]) -> None:
        self._ready = ready
        self._accounts: dict[str, _Budget] = {}
        self._reserved: dict[
            str, tuple[str, Amount, list[_Budget]]
        ] = {}  #: by call: its run, room, and where
        self._of_run: dict[str, set[str]] = {}  #: calls of a run that have room or want it
        self._wanting: dict[str, _Wanting] = {}  #: by call
        self.hungry: dict[str, _Budget] = {}  #: those that somebody waits for room in
        self._number = 0

    # ------------------------------------------------------------ reserving
    def reserve(self, wanted: Reservation) -> Reserved:
        """Reserve room in all accounts, or in none."""
        if wanted.id in self._reserved:
            return "reserved"
        budgets = [self._account(account) for account in wanted.accounts]
        result: Reserved = "reserved"
        lacking = budgets[0]
        for budget in budgets:
            if not budget.may_have_room(wanted.amount):
                result, lacking = "short", budget
            elif result == "reserved" and not budget.has_room(wanted.amount):
                result, lacking = "waits", budget
        self._of_run.setdefault(wanted.run, set()).add(wanted.id)
        if result == "reserved":
            for budget in budgets:
                budget.reserved = budget.reserved.plus(wanted.amount)
            self._reserved[wanted.id] = (wanted.run, wanted.amount, budgets)
            self._leave(wanted.id)
        else:
            known = self._leave(wanted.id)
            self._number += known is None
            number = self._number if known is None else known.number
            one = _Wanting(number, wanted.run, lacking, wanted.amount, result == "short")
            self._wait(wanted.id, one)
        return result

    def _wait(self, id: str, one: _Wanting) -> None:
        self._wanting[id] = one
        one.budget.put(id, one)
        if not one.short:
            self.hungry[one.budget.id] = one.budget

    def _leave(self, id: str) -> _Wanting | None:
        one = self._wanting.pop(id, None)
        if one is not None:
            one.budget.queue.pop(id, None)
            one.budget.short.pop(id, None)
        return one

    def _account(self, account: Account) -> _Budget:
        budget = self._accounts.get(account.id)
        if budget is None:
            budget = self._accounts[account.id] = _Budget(account)
        return budget

    def reserved(self, id: str) -> Amount | None:
        """How much a call has reserved."""
        return self._reserved[id][1] if id in self._reserved else None

    # ------------------------------------------------------------ spending
    def spend(self, settled: Iterable[Settlement]) -> None:
        """Take off what calls did cost that have a reservation."""
        for one in settled:
            if one.id in self._reserved:
                for budget in self._reserved[one.id][2]:
                    budget.spent = budget.spent.plus(one.amount)

    def settle(self, settled: Sequence[Settlement]) -> None:
        """These are over, at that cost, or wait for room no longer."""
        self.spend(settled)
        self.release(one.id for one in settled)
        for one in settled:
            if (waiting := self._leave(one.id)) is not None:
                self._forget(waiting.run, one.id)

    def release(self, ids: Iterable[str]) -> None:
        """These reservations are over."""
        for id in ids:
            known = self._reserved.pop(id, None)
            if known is not None:
                run, amount, budgets = known
                self._forget(run, id)
                for budget in budgets:
                    budget.reserved = budget.reserved.minus(amount)

    def give_back(self, run: str, is_open: Callable[[str], bool], but: Sequence[str] = ()) -> None:
        """A run leaves memory, so no call of its is under way but lines, and none waits `but` these."""
        for id in list(self._of_run.get(run, ())):
            if id in but and id in self._wanting:
                continue
            if self._leave(id) is not None:
                self._forget(run, id)
            elif not is_open(id):
                self.release([id])

    def _forget(self, run: str, id: str) -> None:
        ids = self._of_run.get(run)
        if ids is not None:
            ids.discard(id)
            if not ids:
                del self._of_run[run]

    def of_runs(self, runs: Collection[str]) -> list[str]:
        """The accounts of these, and of blocks in their code."""
        return [id for id in self._accounts if id.startswith(("run:", "block:")) and _owner(id) in runs]

    def lose(self, accounts: Iterable[str]) -> None:
        """Forget accounts, but those that a call is on."""
        on = {budget.id for _, _, budgets in self._reserved.values() for budget in budgets}
        for id in accounts:
            known = self._accounts.get(id)
            if known is not None and id not in on and not (known.queue or known.short):
                del self._accounts[id]

    # ------------------------------------------------------------ waiting
    def fund(self, account: str, limit: Limit, raising: bool, now: float) -> Standing:
        """Set limits."""
        budget = self._account(Account(account, limit))
        old = budget.limit
        if raising:
            budget.limit = old.raised(limit)
        else:
            nanos = old.nanos if limit.nanos is None else limit.nanos
            budget.limit = Limit(nanos, old.tokens if limit.tokens is None else limit.tokens)
        for id, one in list(budget.short.items()):
            if budget.may_have_room(one.amount):
                del budget.short[id]
                one.short = False
                self._wait(id, one)
        self.wake(now)
        return self.standings([account])[0]

    def wake(self, now: float) -> None:
        """Make runs ready for which there is room by now, or can't be any more; who waited longest comes first."""
        for budget in list(self.hungry.values()):
            given = Amount()
            while (first := budget.first()) is not None:
                id, one = first
                if budget.has_room(given.plus(one.amount)):
                    given = given.plus(one.amount)
                elif budget.may_have_room(one.amount):
                    break
                self._leave(id)
                self._forget(one.run, id)
                self._ready(one.run, now)
            else:
                del self.hungry[budget.id]

    def missing(self, wanted: Sequence[str]) -> bool:
        """Whether one of these calls doesn't wait for room any more."""
        return not self._wanting.keys() >= set(wanted)

    def standings(self, accounts: Sequence[str]) -> list[Standing]:
        """How budgets stand."""
        found = [self._accounts[id] for id in sorted(accounts or self._accounts) if id in self._accounts]
        return [
            Standing(
                one.id,
                one.limit,
                one.spent,
                one.reserved,
                len(one.queue) + len(one.short),
            )
            for one in found
        ]


def _owner(account: str) -> str:
    """The run that an account is of; what a block's has behind that has no space."""
    kind, _, rest = account.partition(":")
    return rest if kind == "run" else rest.rpartition(" ")[0]
