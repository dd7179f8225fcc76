"""Budgets at work: what a call may cost and did cost, and the calls of a run that want room or wait for it."""

from __future__ import annotations

import shlex
from asyncio import Task, TimerHandle
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from ...authoring.context import Act, Need
from ...core import budget
from ...core.budget import Answers
from ...core.replay import Place
from ...model.budget import Account, Amount, Reservation, Reserved, Settlement, Standing
from ...model.chat import Tokens
from ...model.errors import MissingExtra, SegueError, Unpriced
from ...model.lane import LIVE
from ...model.run import Usage
from ...ports.clock import Clock
from ...ports.provider import PriceList
from ...ports.store import Store, adding
from ..ground import tasks
from .call import Call

if TYPE_CHECKING:
    from ..wake.executor import Executor

#: So many calls are reserved room for together.
SOME = 256
#: How often a run that has more to do looks for room that others gave back, in seconds.
LOOK = 1.0
_NOTHING = Amount()


class Budgets:
    """What an engine knows of prices and answers, and the store's accounts."""

    def __init__(self, store: Store, clock: Clock, prices: Callable[[], PriceList]) -> None:
        self._store, self._clock, self._prices = store, clock, prices
        self._seen: dict[str, Answers] = {}  # by model

    async def reserve(self, wanted: Sequence[Reservation]) -> list[Reserved]:
        """See `Store.reserve`."""
        return await self._store.reserve(wanted, now=self._clock.now())

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        """How these stand, in their order."""
        known = {one.id: one for one in await self._store.budgets([account.id for account in accounts])}
        return [known.get(account.id) or Standing(account.id, account.limit) for account in accounts]

    def need(
        self,
        id: str,
        accounts: tuple[Account, ...],
        model: str,
        ways: Sequence[str],
        body: Callable[[], bytes],
        *,
        writes: bool,
    ) -> Need:
        """What a call must have room for that may be paid for in each of these lanes."""
        money = budget.wants_price(accounts)

        def estimate() -> Amount:
            read, written = budget.expected(body(), self._seen.get(model), writes=writes)
            total = _NOTHING
            for way in ways:
                usd = self._usd(Usage(model, way, 1, read, written)) if money else None
                total = total.plus(budget.priced(usd, read + written))
            return total

        def cost(tokens: Tokens) -> Amount:
            return self.cost(Usage(model, ways[-1]).plus(tokens), money=money)

        return Need(id=id, accounts=accounts, estimate=estimate, cost=cost)

    def cost(self, use: Usage, *, money: bool) -> Amount:
        """What one call did cost. Raises `Unpriced`."""
        self._seen.setdefault(use.model, Answers()).saw(use.output_tokens)
        usd = self._usd(use) if money else None
        return budget.priced(usd, use.input_tokens + use.output_tokens)

    def line_cost(self, use: Usage, reserved: Amount) -> Amount:
        """What a line did cost for which so much was reserved; that, where its price isn't known here."""
        try:
            return self.cost(use, money=reserved.nanos > 0)
        except SegueError:
            return reserved

    def check(self, model: str, accounts: Sequence[Account]) -> None:
        """Raise `Unpriced`, before anything begins, for a model that no budget in money can hold for."""
        if budget.wants_price(accounts):
            self._usd(Usage(model, LIVE, 1, 1, 1))

    def _usd(self, use: Usage) -> float:
        usd = self._prices().usd(
            use.model,
            use.lane,
            use.input_tokens,
            use.output_tokens,
            use.cached_tokens,
            use.written_tokens,
            use.calls,
        )
        if usd is None:
            raise Unpriced(use.model)
        return usd


class _Lacking(msgspec.Struct):
    call: Call
    need: Need
    amount: Amount
    result: Reserved


class Purse:
    """The calls of one wake that want room in its budgets, or wait for it."""

    __slots__ = ("_asking", "_freed", "_lacking", "_run", "_timer", "_verdict", "_wanted")

    def __init__(self, run: Executor) -> None:
        self._run = run
        self._wanted: deque[tuple[Call, Need]] = deque()
        self._lacking: dict[Place, _Lacking] = {}
        self._asking = False
        self._freed = 0  # calls that were settled since those that lack room were looked at
        self._verdict: tuple[str, bool] | None = (
            None  # why a call lacks room, and whether it is to be held for it
        )
        self._timer: TimerHandle | None = None  # looks for room, while some lack it

    @property
    def lacks(self) -> bool:
        """Whether calls wait for room."""
        return bool(self._lacking)

    # ------------------------------------------------------------ asking
    def want(self, call: Call, need: Need) -> None:
        """A call begins once there is room for it."""
        self._wanted.append((call, need))
        self._ask_soon()

    def _ask_soon(self) -> None:
        if not self._asking:
            self._asking = True
            self._keep(Task(self._ask(), loop=self._run.loop, context=tasks.NO_CONTEXT.copy()))

    def _keep(self, task: Task[None]) -> None:
        self._run.carrying.keep(task)
        task.add_done_callback(self._asked, context=tasks.NO_CONTEXT)

    def _asked(self, task: Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._run.abandon(error)
        self._run.kick()

    async def _ask(self) -> None:
        run = self._run
        try:
            while self._wanted and not run.leaving:
                some = [self._wanted.popleft() for _ in range(min(SOME, len(self._wanted)))]
                asked = [(call, need, need.estimate()) for call, need in some if not call.done()]
                wanted = [Reservation(need.id, run.id, need.accounts, amount) for _, need, amount in asked]
                results = await run.host.budgets.reserve(wanted) if wanted else []
                for (call, need, amount), result in zip(asked, results, strict=True):
                    self._answered(call, need, amount, result)
        except Unpriced as error:
            run.hold(f"{error.cause}\n{error}")
        except MissingExtra as error:
            run.hold(
                f"a budget in US dollars needs prices: {error}\nThen `segue resume {shlex.quote(run.id)}`"
            )
        finally:
            self._asking = False

    def _answered(self, call: Call, need: Need, amount: Amount, result: Reserved) -> None:
        run = self._run
        if result == "gone":
            run.abandon(None)  # it has ended elsewhere
        elif run.leaving:
            pass  # the next life makes the call again, and has the room already
        elif result != "reserved":
            if call.done():
                self._wants_no_more(need)
            else:
                self._lacking[call.place] = _Lacking(call, need, amount, result)
                self._verdict = None  # it is of others
                self._look_later()
        elif call.done():
            self.release(need)
        else:
            need.reserved = amount
            run.begin_call(call)

    # ------------------------------------------------------------ what becomes of it
    def settle(self, need: Need, tokens: Tokens | None) -> None:
        """The next commit pays for a live call; `tokens`: of its answer, where there is one."""
        try:
            paid = _NOTHING if tokens is None else need.cost(tokens)
        except SegueError:  # its price was known before
            paid = need.reserved
        for _ in range(need.spoilt):
            paid = paid.plus(need.reserved)
        turn = self._run.commits.turn
        turn.settled = adding(turn.settled, Settlement(need.id, paid))
        self._freed += 1

    def release(self, need: Need) -> None:
        """A live call was given up: nothing is paid for it but answers that were no use."""
        self.settle(need, None)

    def dropped(self, call: Call) -> None:
        """The code gave a call up."""
        one = self._lacking.pop(call.place, None)
        if one is not None and not self._run.leaving:
            self._verdict = None  # it may be of that one
            self._wants_no_more(one.need)

    def _wants_no_more(self, need: Need) -> None:
        """The next commit says so: in the store it stands before others."""
        turn = self._run.commits.turn
        turn.settled = adding(turn.settled, Settlement(need.id))

    def landed(self) -> None:
        """A commit is durable. What it settled may have made room: those that wait the longest try again."""
        if not self._freed or not self._lacking:
            return
        again = list(islice(self._lacking.items(), 2 * self._freed))
        self._freed = 0
        for place, one in again:
            del self._lacking[place]
            self._wanted.append((one.call, one.need))
        self._ask_soon()

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = self._run.loop.call_later(LOOK, self._look_now, context=tasks.NO_CONTEXT)

    def _look_now(self) -> None:
        self._timer = None
        if self._lacking and not self._run.leaving:
            self._keep(Task(self._look(), loop=self._run.loop, context=tasks.NO_CONTEXT.copy()))

    async def _look(self) -> None:
        """The store wakes those that are parked; who has something else under way looks for room."""
        stand = await self._standings()
        if self._run.leaving:
            return
        for place, one in list(self._lacking.items()):
            budgets = stand.get(one.need.accounts)
            if budgets and all(
                here.limit.has_room(here.spent.plus(here.reserved).plus(one.amount)) for here in budgets
            ):
                del self._lacking[place]
                self._wanted.append((one.call, one.need))
        if self._wanted:
            self._ask_soon()
        if self._lacking:
            self._look_later()

    async def _standings(self) -> Mapping[tuple[Account, ...], list[Standing]]:
        """How the budgets stand that lack room."""
        lacking = dict.fromkeys(one.need.accounts for one in self._lacking.values())
        return {accounts: await self._run.host.budgets.standings(accounts) for accounts in lacking}

    # ------------------------------------------------------------ at rest
    def rest(self) -> None:
        """Nothing is under way here but calls that lack room: the run waits for it, or for money."""
        if self._verdict is None:
            self._keep(Task(self._judge(), loop=self._run.loop, context=tasks.NO_CONTEXT.copy()))
            return
        (reason, held), self._verdict = self._verdict, None
        run = self._run
        if self._timer is not None:
            self._timer.cancel()
        run.commits.turn.wants = [one.need.id for one in self._lacking.values()]
        if held:
            run.hold(reason)
        else:
            run.leave("parked")

    async def _judge(self) -> None:
        """Find out which budget lacks room. `Turn.wants` sees to it that what changes meanwhile isn't missed."""
        self._verdict = "", False
        stand = await self._standings()
        for one in self._lacking.values():
            for standing in stand.get(one.need.accounts, ()):
                if not standing.limit.has_room(standing.spent.plus(one.amount)):
                    self._verdict = budget.reason(standing, one.amount, self._run.id), True
                    return


def need_of(call: Call) -> Need | None:
    """What a call must have room for."""
    request = call.request
    return None if isinstance(request, Act) else request.need
