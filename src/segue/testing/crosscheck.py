"""One flow, every mode, every crash: the same outcomes, the same journals, and nothing done twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable, Sequence
from typing import Any, TypeVar, cast, overload

import msgspec

from ..authoring.failures import to_exception
from ..authoring.flow import short_name, target_of
from ..core import journal
from ..core.budget import in_words
from ..model.budget import STORE, Amount, Budget
from ..model.entry import Entry, Failure
from ..model.errors import AuthorError, ReplayMismatch, ResultMismatch, UnknownName
from ..model.mode import ModeLike
from ..model.run import REUSED, Head, Usage
from ..ports.store import Store
from ..runtime.ground.events import Started
from ..runtime.wake.rebase import entries_of
from ..runtime.wake.replaying import is_cut_off
from .clock import VirtualClock
from .compare import differences, show, timeless
from .crash import Mortal, Survivor
from .fake_model import FakeEngine, FakeModel
from .fake_provider import Remote

In = TypeVar("In")
Out = TypeVar("Out")
Place = tuple[str, str, int]

#: Seconds of real time after which runs that neither end nor die count as stuck.
PATIENCE = 30.0


class Report(msgspec.Struct, frozen=True):
    """What `check` did. `waves`: batch jobs that the rows took; `kills`: crashes; `lives`: processes, in all.

    `held`: runs that a crash cut off in the middle of an at-most-once step, and that so wait for a person.
    """

    waves: int
    kills: int
    lives: int
    held: int


@overload
async def check(
    fn: Callable[[In], Awaitable[Out]],
    rows: Iterable[In],
    /,
    *,
    model: FakeModel,
    kills: int = 100,
    budget: Budget | None = None,
) -> Report: ...
@overload
async def check(
    fn: Callable[[], Awaitable[Out]],
    /,
    *,
    model: FakeModel,
    kills: int = 100,
    budget: Budget | None = None,
) -> Report: ...
async def check(
    fn: Callable[..., Awaitable[Any]],
    rows: Iterable[Any] | None = None,
    /,
    *,
    model: FakeModel,
    kills: int = 100,
    budget: Budget | None = None,
) -> Report:
    """Run a flow or an actor over rows live, in batch, evicted at every wait, and killed before and after every write.

    One that takes no arguments is run once, without rows.

    Raises `AssertionError` where an outcome or a journal differs from the live one's, where a committed step
    or a batch line was done again, and where the code breaks a rule of replay. `kills` bounds the crashes of
    each kind; above it, they are spread evenly over the writes. With a `budget`, in tokens and enough for one call at a
    time, all rows share it, and what it says was spent is what the runs used, wherever they were killed.
    """
    flow = target_of(fn)
    given: object = fn
    if isinstance(given, Coroutine):
        given.close()
        raise TypeError(
            f"check() takes a flow and its rows, not the call {given!r}: check(my_flow, [row], model=…)"
        )
    if flow is None:
        raise UnknownName("flow", getattr(fn, "__qualname__", repr(fn)), "decorate it with @segue.flow")
    with _killed_on_purpose():
        calls = [()] if rows is None else [(row,) for row in rows]
        return await _checked(_Check(fn, calls, model, budget), model, kills)


@contextlib.contextmanager
def _killed_on_purpose() -> Generator[None]:
    """A run whose life is ended here is taken over by the next: that is no news."""

    def is_news(record: logging.LogRecord) -> bool:
        return "was taken over by another worker" not in record.msg

    log = logging.getLogger("segue")
    log.addFilter(is_news)
    try:
        yield
    finally:
        log.removeFilter(is_news)


async def _checked(checked: _Check, model: FakeModel, kills: int) -> Report:
    live = await checked.run(_Way("live", "live", verify=True))
    said = list(model.calls)
    batch = await checked.run(_Way("batch", "batch", verify=True))
    checked.same(live, batch)
    for mode in ("live", "batch"):
        evicted = await checked.run(_Way(f"{mode}, evicted at every wait", mode, always=True))
        checked.same(live, evicted)
    for mode, writes in (("live", live.writes), ("batch", batch.writes)):
        for after in (False, True):
            points = range(1, writes + 1, max(1, -(-writes // kills))) if kills > 0 else ()
            await checked.kill(live, mode, after, points)
    model.calls[:] = said
    return Report(len(batch.remote.jobs), checked.kills, checked.lives, checked.held)


class _Way(msgspec.Struct, frozen=True):
    """A way of running the rows. `die_at`: the write at which the first life ends, `after` it or before."""

    name: str
    mode: ModeLike
    verify: bool = False
    always: bool = False
    die_at: int | None = None
    after: bool = False


class _Done(msgspec.Struct):
    """How it went: every run's record and journal, children included."""

    way: _Way
    heads: dict[str, Head]
    journals: dict[str, list[Entry]]
    remote: Remote
    writes: int
    died: bool


class _Life(msgspec.Struct):
    died: bool
    writes: int


class _Check:
    def __init__(
        self,
        fn: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        model: FakeModel,
        budget: Budget | None,
    ) -> None:
        self.fn, self.model, self.budget = fn, model, budget
        self.target = target_of(fn)
        assert self.target is not None  # `check` looked
        name = short_name(self.target)
        self.calls = {f"{name}-{number}": call for number, call in enumerate(calls)}
        self.lives = self.kills = self.held = 0

    async def kill(self, live: _Done, mode: str, after: bool, points: Iterable[int]) -> None:
        """Once for each of those writes."""
        for point in points:
            name = f"{mode}, killed {'after' if after else 'before'} write {point}"
            done = await self.run(_Way(name, mode, die_at=point, after=after))  # type: ignore[arg-type]  # live or batch
            if not done.died:
                return
            self.kills += 1
            self.same(live, done)

    # ------------------------------------------------------------ one way of running
    async def run(self, way: _Way) -> _Done:
        """Run all rows to their ends, over as many lives as it takes."""
        store, clock = Survivor(), VirtualClock()
        self.model.begin_again()
        remote = self.model.remote
        writes, died = 0, False
        ran: Counter[Place] = Counter()
        for number in range(3):
            life = await self._live(way, store, clock, way.die_at if number == 0 else None, ran)
            writes += life.writes
            self.lives += 1
            if not life.died:
                break
            died = True
            store.lapse()
        heads = {head.id: head for head in await store.runs(limit=1_000_000)}
        journals = {run: await entries_of(store, run) for run in heads}
        done = _Done(way, heads, journals, remote, writes, died)
        self._judge(done, ran)
        await _settled(way, store, heads.values())
        return done

    async def _live(
        self, way: _Way, store: Survivor, clock: VirtualClock, die_at: int | None, ran: Counter[Place]
    ) -> _Life:
        """One process, until all runs have ended or it is killed."""
        mortal = Mortal(store, die_at, after=way.after, every=True)
        killed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mortal.died = lambda: None if killed.done() else killed.set_result(None)
        before = await _recorded(store)
        started: Counter[Place] = Counter()

        def note(event: object) -> None:
            if isinstance(event, Started):
                started[event.run, event.path, event.n] += 1

        engine = FakeEngine(
            self.model,
            cast("Store", mortal),
            mode=way.mode,
            clock=clock,
            verify=way.verify,
            budget=self.budget,
            linger=0.0 if way.always else 1.0,
            park="always" if way.always else "auto",
        )
        async with engine:
            engine.worker.register(self.target)
            engine.bus.watch("", note)
            answering = asyncio.create_task(self.model.keep_answering(engine))
            ending = asyncio.create_task(self._all(engine))
            try:
                await self.model.or_unexpected(self._until(way, engine, ending, killed))
            except (ReplayMismatch, ResultMismatch) as error:
                raise AssertionError(f"{way.name}: {error}") from error
            finally:
                answering.cancel()
                ending.cancel()
        await asyncio.gather(answering, ending, return_exceptions=True)
        ran.update(started)
        again = [place for place, count in started.items() if place in before or count > 1]
        if again:
            lines = [f"call {n} of branch {path or '/'!r} of run {run!r}" for run, path, n in again]
            raise AssertionError(f"{way.name}: what was committed was done again:{show(lines)}")
        return _Life(killed.done(), mortal.commits)

    async def _all(self, engine: FakeEngine) -> None:
        for run, call in self.calls.items():
            await engine.start(self.fn(*call), id=run)
        await asyncio.gather(*(engine.wait(run) for run in self.calls))

    async def _until(
        self, way: _Way, engine: FakeEngine, ending: asyncio.Task[None], killed: asyncio.Future[None]
    ) -> None:
        await asyncio.wait({ending, killed}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if killed.done():
            return
        if not ending.done():
            heads = await engine.store.runs()
            lines = [f"{head.id}: {head.status} {head.reason}" for head in heads]
            raise AssertionError(f"{way.name}: nothing goes on after {PATIENCE:.0f} s:{show(lines)}")
        ending.result()

    # ------------------------------------------------------------ judgement
    def _judge(self, done: _Done, ran: Counter[Place]) -> None:
        """What holds of one way by itself."""
        way = done.way
        for head in done.heads.values():
            if head.status == "held" and not is_cut_off(head):
                raise AssertionError(f"{way.name}: {head.reason}")
            _no_broken_rule(way, head.id, head.error)
        for run, entries in done.journals.items():
            for entry in entries:
                _no_broken_rule(way, run, entry.error)
        twice = [line for line, count in done.remote.sent.items() if count > 1 + done.remote.excused[line]]
        if twice:
            raise AssertionError(f"{way.name}: batch lines were submitted more than once:{show(twice)}")

    def same(self, live: _Done, other: _Done) -> None:
        """Compare with the live runs."""
        names = (live.way.name, other.way.name)
        for run, call in self.calls.items():
            head = other.heads[run]
            if is_cut_off(head):
                self.held += 1
                continue
            was, now = _ended(live.heads[run]), _ended(head)
            if timeless(was.encode()) != timeless(now.encode()):
                what = f"the row {call[0]!r}" if call else "it"
                raise AssertionError(
                    f"{what} ended otherwise:\n  {names[0]}: {was}\n  {names[1]}: {now}"
                    + show(self._differences(live, other, run))
                )
        for run in sorted(live.heads.keys() | other.heads.keys()):
            if run in other.heads and (is_cut_off(other.heads[run]) or other.heads[run].status == "parked"):
                continue
            lines = self._differences(live, other, run)
            if lines:
                raise AssertionError(
                    f"the journals of run {run!r} differ, {names[0]} and {names[1]}:{show(lines)}"
                )

    def _differences(self, live: _Done, other: _Done, run: str) -> list[str]:
        return differences(
            live.journals.get(run, []), other.journals.get(run, []), (live.way.name, other.way.name)
        )


async def _settled(way: _Way, store: Store, heads: Collection[Head]) -> None:
    """Budgets tell what the runs on them used, and nothing is reserved any more or waits."""
    for one in await store.budgets():
        uses: list[Usage] = []
        for head in heads:
            if any(account.id == one.id for account in head.spec.config.accounts):
                uses += [*head.usage, *await store.unclaimed(run=head.id)]
        used = sum(use.input_tokens + use.output_tokens for use in uses if use.lane != REUSED)
        # Of a block's budget only the calls of the runs that it started are told apart here.
        known = one.spent.tokens >= used if one.id.startswith("block:") else one.spent.tokens == used
        # Which limit all rows share, and so must be enough, is said of the whole check; a flow may use up its own.
        enough = one.id != STORE or one.limit.has_room(one.spent)
        if not (known and enough) or (one.reserved, one.waiting) != (Amount(), 0):
            raise AssertionError(
                f"{way.name}: the runs used {used} tokens; budget {one.id!r}: {in_words(one)}"
            )


async def _recorded(store: Survivor) -> set[Place]:
    """Places of calls with an outcome in a journal, and of at-most-once steps that were begun."""
    out: set[Place] = set()
    for head in await store.runs(limit=1_000_000):
        loaded = await store.load(head.id)
        for entry in journal.read(loaded.journal) if loaded is not None else ():
            if not entry.made or entry.kind == "step":
                out.add((head.id, entry.path, entry.n))
    return out


def _ended(head: Head) -> str:
    if head.error is not None:
        return f"{head.status}: {head.error.type}: {head.error.message}"
    return f"{head.status}: {(head.value or b'null').decode()}"


def _no_broken_rule(way: _Way, run: str, failure: Failure | None) -> None:
    """Errors that say that the author's code must change fail the check, whoever catches them."""
    error = None if failure is None else to_exception(failure)
    if isinstance(error, AuthorError):
        raise AssertionError(f"{way.name}, run {run!r}: {error}") from error
