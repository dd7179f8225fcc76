"""Full mailboxes, dead letters, runs as values, typed clients, feeds, and what long-lived actors leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

import segue
from segue import Actor, Note, Request
from segue.model.errors import Conflict, MailboxFull, RunEnded, UnknownName
from segue.stores import open_store
from tests.runtime.lives import Desk


class Parcel(Note):
    n: int


class Wanted(Request[int]):
    n: int


class Delivered(Request[list[int]]):
    """What came."""


class Porter(Actor[None]):
    """Waits for a person before the first parcel, so its mailbox fills."""

    mailbox: ClassVar[segue.Mailbox] = segue.Mailbox(2)
    got: list[int] = segue.field(default_factory=list)

    @segue.on
    async def take(self, parcel: Parcel) -> None:
        if parcel.n == 0:
            await segue.ask("Ready?")
        if parcel.n < 0:
            raise ValueError("broken")
        self.got.append(parcel.n)

    @segue.on
    async def wanted(self, w: Wanted) -> int:
        return w.n

    @segue.on
    async def delivered(self, d: Delivered) -> list[int]:
        return self.got


class Dropper(Porter):
    mailbox = segue.Mailbox(2, full="drop")


class Refuser(Porter):
    mailbox = segue.Mailbox(2, full="fail")


async def is_asked(engine: Any) -> None:
    while not await engine.open_asks():
        await asyncio.sleep(0.001)


async def ready(engine: Any) -> None:
    await is_asked(engine)
    await (await engine.open_asks())[0].answer("yes")


async def emptied(desk: Desk, run: str = "p") -> None:
    while await desk.store.inbox(run, 0):
        await asyncio.sleep(0.001)


async def dead(engine: Any) -> list[tuple[str, str]]:
    return [(letter.mail.value.decode(), letter.reason) for letter in await engine.dead_letters()]


async def test_a_caller_waits_for_room() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Porter(), id="p")
        await run.tell(Parcel(0))
        await is_asked(engine)
        await run.tell(Parcel(1))
        telling = asyncio.ensure_future(run.tell(Parcel(2)))
        await asyncio.sleep(0.05)
        assert not telling.done()
        await ready(engine)
        await asyncio.wait_for(telling, 10)
        while (got := await run.request(Delivered())) != [0, 1, 2]:
            assert got == [0, 1, 2][: len(got)]


@segue.flow
async def sends(run: segue.Run[Any], count: int) -> str:
    for n in range(count):
        await run.tell(Parcel(n))
    return "sent"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_mail_of_runs_waits_in_order(kind: str, tmp_path: Path) -> None:
    """Killed at every commit: each comes once, in order."""
    for after in (False, True):
        for die_at in range(1, 40):
            store = open_store(f"sqlite:{tmp_path}/{after}-{die_at}.db") if kind == "sqlite" else None
            desk = Desk(store)
            async with desk.engine(worker=False) as engine:
                run = await engine.start(Porter(), id="p")
                await engine.start(sends(run, 7), id="s")
            died = whole = False
            work: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            for life in range(3):
                async with desk.engine(die_at if life == 0 else None, after=after) as engine:
                    assert desk.killed is not None
                    work = asyncio.ensure_future(handle_all(desk, engine))
                    await asyncio.wait({work, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
                    died = died or desk.killed.done()
                    whole = work.done() and work.exception() is None  # else the store is dead
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                if whole:
                    break
            assert whole
            assert work.result() == list(range(7))
            if store is not None:
                await store.close()
            if not died:
                break
        else:
            raise AssertionError("it commits for ever")


async def handle_all(desk: Desk, engine: Any) -> list[int]:
    """What came, once all did."""
    run = await engine.get("p")
    while True:
        for ask in await engine.open_asks():
            await ask.answer("yes")
        head = await desk.head("s")
        if head.status == "done" and not await desk.store.inbox("p", 0):
            got: list[int] = await run.request(Delivered())
            if len(got) == 7:
                return got
        await asyncio.sleep(0.001)


async def test_a_full_mailbox_drops() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Dropper(), id="p")
        await run.tell(Parcel(0))
        await is_asked(engine)
        for n in (1, 2, 3):
            await run.tell(Parcel(n))
        flow = await engine.start(asks_and_tells(run), id="f")
        assert await flow == "MailboxFull"
        assert await dead(engine) == [
            (f'{{"n":{n}}}', "the mailbox was full (2 messages)") for n in (2, 3, 9)
        ]
        await ready(engine)
        await emptied(desk)
        for letter in await engine.dead_letters("p"):
            await engine.resend(letter.id)
            await emptied(desk)
        assert await run.request(Delivered()) == [0, 1, 2, 3, 9]
        assert await engine.dead_letters() == []


@segue.flow
async def asks_and_tells(run: segue.Run[Any]) -> str:
    await run.tell(Parcel(9))
    try:
        return str(await run.request(Wanted(1)))
    except Exception as error:
        return type(error).__name__


async def test_a_full_mailbox_fails() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Refuser(), id="p")
        await run.tell(Parcel(0))
        await is_asked(engine)
        await run.tell(Parcel(1))
        with pytest.raises(MailboxFull, match=r"mailbox of run 'p' is full \(2 messages\)"):
            await run.tell(Parcel(2))
        with pytest.raises(MailboxFull):
            await run.request(Wanted(2))
        flow = await engine.start(asks_and_tells(run), id="f")
        assert await flow == "MailboxFull"
        assert await dead(engine) == [('{"n":9}', "the mailbox was full (2 messages)")]
        (letter,) = await engine.dead_letters()
        with pytest.raises(MailboxFull):
            await engine.resend(letter.id)
        with pytest.raises(ValueError, match="room for one message at least"):
            segue.Mailbox(0)


# ---------------------------------------------------------------- dead letters
async def test_dead_letters() -> None:
    class Strange(Note):
        x: int

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Porter(), id="p")
        other = await engine.start(Porter(), id="q")
        await run.tell(Strange(1))
        await run.tell(Parcel(-1))
        await engine.tell("p", "Parcel", b'{"n":"no number"}')
        await run.tell(Parcel(5))
        while await run.request(Delivered()) != [5]:
            await asyncio.sleep(0.001)
        letters = await engine.dead_letters("p")
        assert [letter.reason for letter in letters] == [
            "no handler took it", "Porter.take() failed", "Porter.take() can't read it",
        ]  # fmt: skip
        types = [letter.error.type for letter in letters if letter.error]
        assert types == ["builtins:TypeError", "builtins:ValueError", "segue.model.errors:InvalidValue"]
        assert all(letter.at for letter in letters)
        await other.cancel()
        await engine.wait("q")
        await engine.run(sends(other, 1))
        (letter,) = await engine.dead_letters("q")
        assert letter.reason == "the run had ended (cancelled)"
        with pytest.raises(Conflict, match="takes no more mail"):
            await engine.resend(letter.id)
        with pytest.raises(UnknownName, match="dead letter '999'"):
            await engine.resend(999)


# ---------------------------------------------------------------- runs as values
@dataclass
class Team:
    first: segue.Run[Any]
    rest: list[segue.Recipient[Parcel]]


class PorterClient:
    """A typed client: what a program knows of porters."""

    def __init__(self, run: segue.Run[None]) -> None:
        self._run = run

    async def bring(self, n: int) -> None:
        await self._run.tell(Parcel(n))

    async def brought(self) -> list[int]:
        return await self._run.request(Delivered())


class Boss(Actor[None]):
    team: Team

    @segue.on
    async def pass_on(self, parcel: Parcel) -> None:
        await self.team.first.tell(parcel)
        for one in self.team.rest:
            await one.tell(Parcel(parcel.n + 1))

    @segue.on
    async def change(self, team: Team) -> None:
        self.team = team


@segue.flow
async def with_clients(runs: list[segue.Run[Any]]) -> list[int]:
    for run in runs:
        await PorterClient(run).bring(7)
    return await PorterClient(runs[0]).brought()


async def test_a_run_is_a_value(tmp_path: Path) -> None:
    path = f"sqlite:{tmp_path}/runs.db"
    desk = Desk(open_store(path))
    async with desk.engine() as engine:
        p, q = [await engine.start(Porter(), id=id) for id in "pq"]
        boss = await engine.start(Boss(Team(p, [])), id="boss")
        await boss.tell(Team(p, [q.recipient(Parcel)]))
        await boss.tell(Parcel(3))
        while await q.request(Delivered()) != [4]:
            await asyncio.sleep(0.001)
    await desk.store.close()
    desk = Desk(open_store(path))
    async with desk.engine() as engine:  # as after a restart, and as in another process
        boss = await engine.get("boss")
        await boss.tell(Parcel(5))
        p, q = await engine.get("p"), await engine.get("q")
        while await q.request(Delivered()) != [4, 6]:
            await asyncio.sleep(0.001)
        assert await engine.run(with_clients([p, q])) == [3, 5, 7]
        assert p == await engine.get("p")
        assert len({p, q, await engine.get("p")}) == 2
        assert await PorterClient(q).brought() == [4, 6, 7]
        assert await q.recipient(Wanted).request(Wanted(8)) == 8
    await desk.store.close()


@segue.flow
async def gives_back(run: segue.Run[Any]) -> segue.Run[Any]:
    return run


async def test_a_run_as_a_result() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Porter(), id="p")
        back = await engine.run(gives_back(run))
        assert back == run
        await back.tell(Parcel(1))
        assert await back.request(Delivered()) == [1]


# ---------------------------------------------------------------- feeds
async def parcels(count: int, gone: list[int]) -> AsyncIterator[Parcel]:
    for n in range(count):
        gone.append(n)
        yield Parcel(n)


async def test_a_source_is_fed_with_back_pressure() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Porter(), id="p")
        gone: list[int] = []
        feeding = asyncio.ensure_future(run.feed(parcels(20, gone)))
        await is_asked(engine)
        await asyncio.sleep(0.1)
        assert gone == [0, 1, 2]  # two are in the mailbox, one waits
        await ready(engine)
        assert await asyncio.wait_for(feeding, 20) == 20
        while await run.request(Delivered()) != list(range(20)):
            await asyncio.sleep(0.001)
        assert await run.feed([Parcel(20), Parcel(21)]) == 2


class Sack(segue.Note):
    n: int


class Weigh(segue.Request[int]):
    pass


class Scale(segue.Actor[None]):
    """Takes a sack when it was answered."""

    sacks: list[int] = segue.field(default_factory=list)

    @segue.on
    async def sack(self, s: Sack) -> None:
        if s.n % 100 == 50:
            await segue.ask(f"{s.n}?", returns=bool)
        self.sacks.append(s.n)

    @segue.on
    async def weigh(self, _: Weigh) -> int:
        assert self.sacks == list(range(len(self.sacks)))
        return len(self.sacks)


class SmallScale(Scale):
    mailbox = segue.Mailbox(10)


GONE: list[int] = []


async def sacks(count: int) -> AsyncIterator[Sack]:
    for n in range(count):
        GONE.append(n)
        yield Sack(n)


@segue.flow
async def fill(scale: segue.Run[Any], count: int) -> int:
    return await scale.feed(sacks(count))


@segue.flow
async def weighs(count: int) -> int:
    for n in range(count):
        assert (await segue.receive(Sack)).n == n
        if n % 100 == 50:
            await segue.ask(f"{n}?", returns=bool)
    await segue.ask("all", returns=bool)
    return count


@pytest.mark.parametrize("park", ["auto", "always"])
@pytest.mark.parametrize("kind", ["actor", "bounded", "flow"])
async def test_inside_a_run_a_source_is_slowed_down_to_what_the_run_takes(kind: str, park: Any) -> None:
    GONE.clear()
    async with segue.Engine(park=park) as engine:
        made: Any = {"actor": Scale, "bounded": SmallScale}[kind]() if kind != "flow" else weighs(250)
        scale = await engine.start(made, id="scale")
        filling = await engine.start(fill(scale, 250), id="fill")
        most = 100
        async for ask in engine.asks():
            if ask.question == "all":
                await ask.answer(True)
                break
            await asyncio.sleep(0.05)
            assert max(GONE) + 1 == min(most, 250), ask.question
            most += 100
            await ask.answer(True)
            if most == 300 and kind != "flow":
                break
        assert await filling == 250
        if kind == "flow":
            assert await scale == 250
        else:
            while await scale.request(Weigh()) < 250:
                await asyncio.sleep(0.01)


class Sorter(segue.Actor[int]):
    @segue.on
    async def sort(self, first: Sack) -> segue.Done[int]:
        """Takes the others while it has the first in hand."""
        return segue.Done(first.n + sum([(await segue.receive(Sack)).n for _ in range(249)]))


@pytest.mark.parametrize("park", ["auto", "always"])
async def test_what_a_handler_receives_of_a_source_was_taken(park: Any) -> None:
    """The source waited until the first 100 were taken, and the handler for the next one."""
    async with segue.Engine(park=park) as engine:
        sorter = await engine.start(Sorter(), id="sorter")
        assert await asyncio.wait_for(engine.run(fill(sorter, 250)), 20) == 250
        assert await sorter == sum(range(250))


class Picky(Scale):
    mailbox = segue.Mailbox(10, full="drop")


class Strict(Scale):
    mailbox = segue.Mailbox(10, full="fail")


@pytest.mark.parametrize("made", [Picky, Strict])
async def test_a_source_that_is_fed_to_a_mailbox_that_refuses_goes_on(made: Any) -> None:
    """What finds no room is a dead letter, as with `tell`; who asks how far the others were taken isn't refused."""
    async with segue.Engine() as engine:
        scale = await engine.start(made(), id="scale")
        assert await engine.run(fill(scale, 250)) == 250
        dead = await engine.dead_letters()
        assert {letter.reason for letter in dead} == {"the mailbox was full (10 messages)"}
        assert {letter.mail.name for letter in dead} == {"Sack"}


class Start(segue.Request[int]):
    pass


class Loop(Scale):
    @segue.on
    async def start(self, _: Start) -> int:
        return int(await self.me.feed([Sack(n) for n in range(300) if n % 100 != 50]))


async def test_who_feeds_itself_or_one_that_waits_for_it_isnt_held_up() -> None:
    async with segue.Engine() as engine:
        run = await engine.start(Loop(), id="loop")
        assert await asyncio.wait_for(run.request(Start()), 5) == 297


async def test_a_source_of_one_that_ended_is_told() -> None:
    class Deaf(segue.Actor[None]):
        def begin(self) -> segue.Done[None]:
            return segue.Done()

    async with segue.Engine() as engine:
        run = await engine.start(Deaf(), id="deaf")
        await run
        with pytest.raises(RunEnded):
            await engine.run(fill(run, 100))


@pytest.mark.parametrize("address", ["memory:", "sqlite:{}/runs.db"])
@pytest.mark.parametrize("box", [None, segue.Mailbox(10)])
async def test_a_source_whose_last_item_ends_the_run_is_not(address: str, box: Any, tmp_path: Path) -> None:
    """It had taken all, and whoever fed it exactly 100 was told that it answers no more."""

    class Full(segue.Actor[int]):
        mailbox = box
        count: int = 0

        @segue.on
        async def sack(self, _: Sack) -> segue.Done[int] | None:
            self.count += 1
            return segue.Done(self.count) if self.count == 100 else None

    async with segue.Engine(address.format(tmp_path)) as engine:
        run = await engine.start(Full(), id="full")
        assert await engine.run(fill(run, 100)) == 100
        assert await run == 100


# ---------------------------------------------------------------- children of long-lived actors
@segue.flow
async def errand(n: int) -> int:
    return n


class Sender(Actor[None]):
    """Starts runs that it never waits for."""

    @segue.on
    async def send(self, parcel: Parcel) -> None:
        await segue.spawn(errand(parcel.n))

    @segue.on
    async def wanted(self, w: Wanted) -> int:
        run = await segue.spawn(errand(w.n))
        await segue.sleep(timedelta(hours=1))
        return int(await run)


async def test_children_that_nobody_waits_for_leave_nothing() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Sender(), id="s")
        for n in range(20):
            await run.tell(Parcel(n))
        assert await run.request(Wanted(7)) == 7  # one that is waited for later still is
        for _ in range(3000):
            if not await desk.store.inbox("s", 0):
                break
            await asyncio.sleep(0.001)
        assert await desk.store.inbox("s", 0) == []


@segue.flow
async def starts_many(count: int) -> int:
    runs = [await segue.spawn(errand(n)) for n in range(count)]
    await segue.sleep(timedelta(hours=1))
    return await runs[-1]  # type: ignore[no-any-return]  # a spawned run's type isn't known


async def test_ends_that_come_early_are_read_once() -> None:
    desk = Desk()
    reads = 0
    async with desk.engine() as engine:
        from segue.runtime.wake.mailbox import Mailbox

        read = Mailbox._read

        def count(self: Mailbox, letter: Any) -> None:
            nonlocal reads
            reads += 1
            read(self, letter)

        Mailbox._read = count  # type: ignore[method-assign]  # put back below
        try:
            assert await engine.run(starts_many(100)) == 99
        finally:
            Mailbox._read = read  # type: ignore[method-assign]  # as it was
    assert reads < 400
