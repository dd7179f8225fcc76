"""Jobs: a flow over many rows, each a run of its own."""

from __future__ import annotations

import logging
from array import array
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..authoring.flow import Target
from ..authoring.mail import make_spec
from ..authoring.map import Outcome
from ..model import checks
from ..model.errors import Conflict, SegueError, UnknownName
from ..model.mode import Config
from ..model.run import Head, Status
from ..ports.store import Created, JobHead, NewRun, Store
from .ends import Unheard
from .ground.listing import each_run
from .ground.patience import patiently
from .handles import Run, run_error
from .receipt import Receipt
from .stuck import held_beneath

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("segue")
In = TypeVar("In")
Out = TypeVar("Out")
#: Rows are made into runs so many at a time.
ADMIT = 500
#: So many runs that have ended are kept until it is known whether they are of this call's rows.
EARLY = 2000
#: So many rows of a call are held against what the job has, before any run is made.
FIRST = 20
#: So many of those that are refused beside one are named.
NAMED = 5
#: No text has that hash.
NOBODY = -1


class Row:
    """A row whose call was bound and checked already, as `InputShape.bind_row` writes it."""

    __slots__ = ("args",)

    def __init__(self, args: bytes) -> None:
        self.args = args


class Job(Awaitable[list[Out]], AsyncIterable[Outcome[In, Out]], Generic[In, Out]):
    """A mapped set of runs. Iterating gives outcomes as they come, awaiting all values in the rows' order.

    Only the rows of this call of `map` are given, whatever else the job has done before. A held run counts as failed,
    with `RunHeld`, once nothing else is left, and so does one that waits for a held run beneath it. A row whose run is
    resumed meanwhile is given once more; its last outcome is its value.
    """

    def __init__(self, engine: Engine, id: str, flow: Target) -> None:
        self._engine, self.id, self._flow = engine, id, flow
        self.unfit: list[Outcome[Any, Any]] = []  # rows that no run could be made of
        self.total: int | None = None
        self.failure: BaseException | None = None
        self._names = array("q")  # of this call's rows by number, the hash of the key: there may be millions
        self._moved: dict[int, int] = {}  # the same to the number, of runs that were begun under another one
        self._otherwise, self._begun = 0, ""  # runs that were begun with other options, and with which

    @property
    def conflict(self) -> Exception | None:
        """Why the first row that isn't what the job has by its key was refused, if one was, and which others are."""
        found = [row for row in self.unfit if isinstance(row.error, Conflict)]
        if len(found) < 2:
            return found[0].error if found else None
        return Conflict(f"{found[0].error}{_too((row.index, row.key) for row in found[1:])}")

    # ------------------------------------------------------------ rows
    async def admit(
        self, rows: AsyncIterator[Any], key: Callable[[Any], str] | None, limit: int, config: Config
    ) -> None:
        """Make runs of rows, some hundred at a time."""
        engine, flow = self._engine, self._flow
        if key is None and (one := await keyed_run(engine.store, self.id)) is not None:
            raise Conflict(
                f"job {self.id!r} knows its rows by a key, such as {one.spec.key!r}: give map() the same key= "
                f"again, or the job another id"
            )
        there = await engine.store.get_job(self.id)
        if there is not None:
            check_target(there, flow.name)
        began = engine.clock.now()
        config = config.begun(began)  # all rows of a call have one deadline
        await engine.store.put_job(JobHead(self.id, flow.name, began))
        group = self.id if limit else ""
        chunk: list[NewRun] = []
        number, unchecked = 0, there is not None
        async for row in rows:
            try:
                name = str(number) if key is None else str(key(row))
                checks.text("the key of a row", name)
                args = self._args(row)
            except (SegueError, TypeError, ValueError, LookupError) as error:
                self.unfit.append(Outcome(number, row, None, error))
            else:
                how: dict[str, Any] = {
                    "job": self.id,
                    "index": number,
                    "key": name,
                    "group": group,
                    "limit": limit,
                }
                run = f"{self.id}/{name}"
                own = config.opened(f"run:{run}")
                chunk.append(NewRun(run, make_spec(flow, args, own, engine.clock.now(), **how)))
            number += 1
            if len(chunk) >= ADMIT:
                await self._create(chunk, unchecked=unchecked)
                chunk, unchecked = [], False
        await self._create(chunk, unchecked=unchecked)
        known = await engine.store.get_job(self.id)
        earlier = sum(known.counts.values()) if known is not None else 0  # of rows that may not come now
        await engine.store.put_job(JobHead(self.id, flow.name, began, max(number, earlier)))
        self.total = number
        self._heed()

    def _args(self, row: Any) -> bytes:
        """What a row's run is called with. Raises where it doesn't fit."""
        if isinstance(row, Row):
            return self._flow.stored(row.args)
        args = self._flow.encode_call((row,), {})
        self._flow.check_args(args)
        return args

    def _heed(self) -> None:
        """Say so where runs that are there were begun with other options than are asked for; see `Engine.heed`."""
        if not self._otherwise:
            return
        which = "1 of its runs stays as it was"
        if self._otherwise > 1:
            which = f"{self._otherwise} of its runs stay as they were"
        log.warning(
            "job %r: %s begun, with %s: other options hold for new rows, under another id, or for runs "
            "that are resumed with them",
            self.id,
            which,
            self._begun,
        )

    async def _create(self, chunk: list[NewRun], *, unchecked: bool) -> None:
        if unchecked:
            first = [(each.spec.index, each.spec.key, each.spec.args) for each in chunk[:FIRST]]
            await check_first(self._engine.store, self.id, first, alone=True)
        if chunk:
            created = await self._engine.worker.create(chunk)
            for one, new in zip(created, chunk, strict=True):
                self._count(one, new)
        self._engine.rows_came()

    def _count(self, one: Created, new: NewRun) -> None:
        """Take a row's run as this call's, unless it is another row's."""
        there, mine = one.head.spec, new.spec
        why = ""
        if one.head.damage:
            pass  # whose it is can't be told; it is held
        elif not one.new and there.target != mine.target:
            why = f"the job is one of {there.target!r}: give this one another id"
        elif (first := self._row_of(one.head)) is not None:
            why = f"row {first} has the same key"
        elif not one.new and there.args != mine.args:
            why = changed(mine.index, mine.key)
        if why:
            error = Conflict(f"row {mine.index} of job {self.id!r}, key {mine.key!r}: {why}")
            self.unfit.append(Outcome(mine.index, self._input(mine.args), None, error, mine.key))
        else:
            self._name(mine.index, there.index, hash(mine.key))
        if not one.new and not why and not one.head.damage and there.config != mine.config:
            begun = there.config.over(self._engine.config).instead_of(mine.config)
            self._otherwise += bool(begun)
            self._begun = self._begun or begun

    def _name(self, number: int, index: int, name: int) -> None:
        """Note under which name a row of this call is known. `index`: its number when its run was begun."""
        if number == index:
            self._names.extend(NOBODY for _ in range(number - len(self._names)))
            self._names.append(name)
        else:
            self._moved[name] = number

    def _row_of(self, head: Head) -> int | None:
        """The number of a run's row in this call, as far as rows were made into runs."""
        index, name = head.spec.index, hash(head.spec.key)
        if index < len(self._names) and self._names[index] == name:
            return index
        return self._moved.get(name)

    def _number(self, head: Head) -> int | None:
        """The number of a run's row among the rows of this call; -1 for none, None if that isn't known yet."""
        row = self._row_of(head)
        if row is not None:
            return row
        return None if self.total is None else -1

    # ------------------------------------------------------------ outcomes
    def __await__(self) -> Generator[Any, Any, list[Out]]:
        return self._values().__await__()

    async def _values(self) -> list[Out]:
        outcomes = {outcome.index: outcome async for outcome in self}
        return [outcomes[index].value for index in sorted(outcomes)]

    async def __aiter__(self) -> AsyncIterator[Outcome[In, Out]]:
        store, check = self._engine.store, self._engine.check
        given, unfit, cursor, unheard = 0, 0, 0, Unheard(self._engine.ends, "job", self.id)
        early: list[Head] = []  # of rows that may come yet
        failed = set[int]()  # rows that were given so, and may be resumed
        while True:
            signal = self._engine.ends.next()
            over = self.total is not None
            while unfit < len(self.unfit):
                unfit += 1
                given += 1
                yield self.unfit[unfit - 1]
            full = len(early) >= EARLY and not over
            heads = [] if full else await patiently(partial(store.finished, self.id, cursor, 500), check)
            cursor = heads[-1].finished if heads else cursor
            found, early = early + heads, []
            for head in found:
                number = self._number(head)
                if number is None:
                    early.append(head)
                elif number >= 0:
                    given += number not in failed
                    if head.status != "done":
                        failed.add(number)
                    yield self.outcome(await self._engine.verified(head), number)
            if heads:
                unheard.came()
                continue
            check()
            if self.failure is not None:
                raise self.failure
            if over and self.total is not None:
                left = self.total - given
                held = await patiently(partial(self._held, left, failed), check) if left else []
                if held is not None:
                    for head, by in sorted(held, key=lambda one: self._number(one[0]) or 0):
                        yield self.outcome(head, self._number(head) or 0, by)
                    return
            await unheard.looked()
            with self._engine.worker.absent.waiting():
                await signal

    async def _held(self, missing: int, but: set[int]) -> list[tuple[Head, Head]] | None:
        """This call's rows that are held, or wait for one that is, each with that one, if they are all that is left
        `but` those that were given. Raises `UnknownName` for a job that was removed.
        """
        known = await self._engine.store.get_job(self.id)
        if known is None:
            raise UnknownName("job", self.id, "it was removed while its outcomes were still to be read")
        counts = known.counts
        if counts.get("held", 0) + counts.get("parked", 0) < missing:
            return None
        if counts.get("held", 0) < missing and (counts.get("ready") or self._engine.is_busy()):
            return None
        held = [(head, head) async for head in self._rows("held", but)]
        if len(held) < missing:
            beneath = await held_beneath(self._engine.store, self._rows("parked", but))
            if beneath:
                held += [
                    (head, beneath[head.id]) async for head in self._rows("parked", but) if head.id in beneath
                ]
        return held if len(held) >= missing else None

    async def _rows(self, status: Status, but: set[int]) -> AsyncIterator[Head]:
        """This call's rows in that status, but those."""
        async for head in each_run(self._engine.store, job=self.id, status=(status,)):
            number = self._number(head) or 0
            if number >= 0 and number not in but:
                yield head

    def outcome(self, head: Head, number: int, by: Head | None = None) -> Outcome[In, Out]:
        """How the run of one row came out. `by`: the held run that it waits for, or is."""
        run: Run[Out] = Run(self._engine, head.id, self._flow)
        done = head.status == "done"
        value = run.result_of(head) if done else None
        error = None if done else run_error(by or head)
        input = cast(In, None) if head.damage else self._input(head.spec.args)  # nobody knows it
        return Outcome(number, input, value, error, head.spec.key, run)

    def _input(self, data: bytes) -> Any:
        return self._flow.input_of(data)

    async def receipt(self) -> Receipt:
        """What all its runs and those that they started cost, those of earlier calls of `map` included."""
        return await self._engine.receipt(job=self.id)


def check_target(job: JobHead, target: str) -> None:
    """Raise `Conflict` for a job of another flow or actor."""
    if job.target != target:
        raise Conflict(
            f"job {job.id!r} is one of {job.target!r}, not of {target!r}: give this one another id"
        )


async def check_first(
    store: Store, job: str, rows: Iterable[tuple[int, str, bytes]], *, alone: bool = False
) -> None:
    """Raise `Conflict` where a call's first rows aren't what the job has, before any run is made and paid for.

    A row is its number, key and arguments. Rows that differ further on are found when they come. `alone`: one that
    changed under its key is refused then too, since the others are known by theirs.
    """
    refused: list[tuple[int, str]] = []
    for number, key, args in rows:
        by_number = key == str(number)
        head = await store.get(f"{job}/{key}")
        if head is None and not by_number:
            same = await store.get(f"{job}/{number}")
            if same is not None and same.spec.key == str(same.spec.index) and same.spec.args == args:
                raise Conflict(
                    f"job {job!r} knows its rows by number, such as row {number}, and not by a key, such as {key!r}: "
                    f"give no key, or the job another id"
                )
        elif head is not None and not head.damage and head.spec.args != args and (by_number or not alone):
            refused.append((number, key))
    if refused:
        number, key = refused[0]
        others = _too(refused[1:], f" of the first {FIRST}")
        raise Conflict(f"row {number} of job {job!r}, key {key!r}: {changed(number, key)}{others}")


def _too(rows: Iterable[tuple[int, str]], which: str = "") -> str:
    """That these are refused as well, by number and key, in a line of its own."""
    names = [str(number) if key == str(number) else f"{number} (key {key!r})" for number, key in rows]
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"\nrefused too{which}: row{'s' if len(names) > 1 else ''} {', '.join(names[:NAMED])}{more}"


def changed(number: int, key: str) -> str:
    """What is told of a row whose run was begun with another input."""
    cure = "a key is of one input; make it of what changes too, such as a version, or give the job another id"
    if key == str(number):
        cure = "know rows by a key (key=, --key), or give the job another id"
    return f"its input changed since the job began: {cure}"


async def keyed_run(store: Store, job: str) -> Head | None:
    """One of a job's newest runs that is known by something else than its number, if there is one."""
    heads, _ = await store.newest(job=job, limit=FIRST)
    return next((head for head in reversed(heads) if head.spec.key != str(head.spec.index)), None)
