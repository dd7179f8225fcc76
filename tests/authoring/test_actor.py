"""Actors: fields, states, notes, requests; handled once whatever crashes; the same live and in batch."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Again, Answer, Done, Fail, Listen, Note, Request
from segue.model.errors import BadSignature, Deadlock, InvalidValue
from segue.ports.store import Turn
from segue.stores import open_store
from tests import commits
from tests.runtime.lives import Desk

S: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    S.clear()


@dataclass
class Reading:
    text: str


@dataclass
class Counting:
    text: str
    left: int = 2


class Add(Note):
    text: str


class Say(Request[str]):
    text: str


class Total(Request[list[str]]):
    pass


class Break(Request[int]):
    pass


class Stop(Note):
    pass


class Unheard(Request[int]):
    pass


class Clerk(Actor[int]):
    name: str
    seen: list[str] = segue.field(default_factory=list)
    counted: int = 0
    scratch: list[str] = segue.field(default_factory=list, durable=False)

    def begin(self) -> Reading:
        return Reading("first")

    @segue.state
    async def reading(self, state: Reading) -> Counting:
        S.append(f"read {state.text}")
        self.seen.append(state.text)
        return Counting(state.text)

    @segue.state
    def counting(self, state: Counting) -> Counting | Listen | Again:
        S.append(f"count {state.left}")
        assert threading.current_thread() is not threading.main_thread()
        self.counted += 1
        if state.left:
            return Counting(state.text, state.left - 1)
        return Listen()

    @segue.on
    async def add(self, note: Add) -> None:
        S.append(f"add {note.text}")
        self.scratch.append(note.text)
        self.seen.append(note.text)

    @segue.on
    async def say(self, request: Say) -> str:
        S.append(f"say {request.text}")
        said = await segue.generate(f"say {request.text}")
        self.seen.append(said)
        return f"{self.name}: {said} {segue.uuid()}"

    @segue.on
    def total(self, request: Total) -> list[str]:
        return self.seen

    @segue.on
    async def fails(self, request: Break) -> int:
        self.seen.append("half")
        raise ValueError(f"broken {self.counted}")

    @segue.on
    async def stop(self, note: Stop) -> Done[int]:
        return Done(self.counted)


async def test_a_whole_life() -> None:
    desk = Desk()
    desk.fake.when("say").reply(lambda call: call.text.upper())
    async with desk.engine() as engine:
        run = await engine.start(Clerk("Ada"), id="ada")
        await run.tell(Add("x"))
        said = await run.request(Say("hi"))
        assert said.startswith("Ada: SAY HI ")
        again = await run.request(Say("hi"))
        assert said != again  # chance belongs to the turn
        assert await run.request(Total()) == ["first", "x", "SAY HI", "SAY HI"]
        await run.tell(Stop())
        assert await run == 3
    assert S == ["read first", "count 2", "count 1", "count 0", "add x", "say hi", "say hi"]


@pytest.mark.parametrize("mode", ["live", "batch"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_each_message_is_handled_once_whatever_crashes(mode: str, kind: str, tmp_path: Path) -> None:
    for after in (False, True):
        for die_at in range(1, 40):
            S.clear()
            store = open_store(f"sqlite:{tmp_path}/{after}-{die_at}.db") if kind == "sqlite" else None
            desk = Desk(store)
            desk.fake.when("say").reply(lambda call: call.text.upper())
            async with desk.engine(worker=False) as engine:
                run = await engine.start(Clerk("Ada"), id="ada", mode=mode)
                for note in (Add("a"), Add("b")):
                    await run.tell(note)
                await engine.start(client(), id="client", mode=mode)
            died = await through(desk, "client", die_at, after)
            head = await desk.head("client")
            while head.status != "done":
                assert head.status in ("ready", "parked"), head
                await through(desk, "client", None, False)
                head = await desk.head("client")
            assert head.value == b'["Ada: SAY HI","Ada: SAY HO",["first","a","b","SAY HI","SAY HO"]]'
            sent = desk.fake.remote.sent
            assert all(count == 1 for count in sent.values()), sent
            if store is not None:
                await store.close()
            if not died:
                break
        else:
            raise AssertionError("it commits for ever")


async def through(desk: Desk, run: str, die_at: int | None, after: bool) -> bool:
    """A life until that run ends or the process dies; whether it died."""
    async with desk.engine(die_at, after=after) as engine:
        assert desk.killed is not None
        ending = asyncio.ensure_future(engine.wait(run))
        await asyncio.wait({ending, desk.killed}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        return desk.killed.done()


@segue.flow
async def client() -> list[Any]:
    from segue.authoring.context import current

    clerk = current("test").run.services.handle("ada", None, None)
    one = await clerk.request(Say("hi"))
    two = await clerk.request(Say("ho"))
    return [one[:11], two[:11], await clerk.request(Total())]


async def test_a_handler_that_doesnt_wait_is_one_commit() -> None:
    turns: list[Turn] = []
    desk = Desk()
    async with desk.engine() as engine:
        commits.tell(engine.worker, turns.append)
        run = await engine.start(Clerk("Ada"), id="ada")
        await desk.parked("ada")
        turns.clear()
        await run.tell(Add("x"))
        await run.request(Total())
        await desk.parked("ada")
    mine = [turn for turn in turns if turn.run == "ada"]
    handled = [turn for turn in mine if turn.consumed]
    assert len(handled) == 2
    assert all(turn.checkpoint is not None and turn.entries is None for turn in handled)
    assert len(mine) <= 4  # and at most one to park, each time


async def test_fields_survive_a_restart(tmp_path: Path) -> None:
    path = f"sqlite:{tmp_path}/runs.db"
    for n in range(3):
        desk = Desk(open_store(path))
        async with desk.engine() as engine:
            run = await engine.start(Clerk("Ada"), id="ada")
            await run.tell(Add(f"{n}"))
            assert await run.request(Total()) == ["first", *map(str, range(n + 1))]
        await desk.store.close()
    assert S.count("read first") == 1


async def test_an_error_goes_to_the_requester() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Clerk("Ada"), id="ada")
        with pytest.raises(ValueError, match="broken 3"):
            await run.request(Break())
        assert await run.request(Total()) == ["first"]  # what a failed handler changed is undone
        with pytest.raises(
            TypeError, match=r"'Clerk' takes no 'Unheard'; it takes Add, Break, Say, Stop, Total"
        ):
            await run.request(Unheard())
        await run.tell(Unheard())
        assert await run.request(Total()) == ["first"]


async def test_timeouts_of_requests() -> None:
    class Slow(Actor[None]):
        @segue.on
        async def total(self, request: Total) -> list[str]:
            await segue.sleep(timedelta(days=2))
            return ["late"]

    @segue.flow
    async def flow() -> list[str]:
        slow = await segue.spawn(start(), id="starter")
        await slow
        return []

    @segue.flow
    async def start() -> None:
        """Nothing."""

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Slow(), id="slow")
        with pytest.raises(TimeoutError, match="request Total"):
            await run.request(Total(), timeout=timedelta(days=1))
        assert await run.request(Total()) == ["late"]


async def test_deadlock() -> None:
    class Left(Actor[None]):
        @segue.on
        async def total(self, request: Total) -> list[str]:
            return await other("right").request(Total())

    class Right(Actor[None]):
        @segue.on
        async def total(self, request: Total) -> list[str]:
            return await other("left").request(Total())

    def other(id: str) -> Any:
        from segue.authoring.context import current

        return current("test").run.services.handle(id, None, None)

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Left(), id="left")
        await engine.start(Right(), id="right")
        with pytest.raises(Deadlock, match=r"left.*right.*left"):
            await run.request(Total())


async def test_bad_classes() -> None:
    desk = Desk()

    class Nowhere(Actor[None]):
        def begin(self) -> Reading:
            return Reading("x")

    class Unannotated(Actor[None]):
        @segue.on
        async def add(self, note) -> None:  # type: ignore[no-untyped-def]  # on purpose
            """Nothing."""

    class Two(Actor[None]):
        @segue.on
        async def add(self, note: Add) -> None:
            """Nothing."""

        @segue.on
        async def more(self, note: Add) -> None:
            """Nothing."""

    async with desk.engine() as engine:
        with pytest.raises(BadSignature, match="leads to the state Reading, which has no handler"):
            await engine.start(Nowhere())
        with pytest.raises(BadSignature, match="takes one annotated argument"):
            await engine.start(Unannotated())
        with pytest.raises(BadSignature, match=r"add.*more|more.*add"):
            await engine.start(Two())


async def test_ends() -> None:
    class Ends(Actor[int]):
        n: int = 0

        @segue.on
        async def add(self, note: Add) -> Any:
            match note.text:
                case "fail":
                    return Fail(ValueError("gave up"))
                case "nonsense":
                    return 17
            return Done("text")

        @segue.on
        async def total(self, request: Total) -> Any:
            self.n += 1
            return Answer([str(self.n)], then=Done(self.n))

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Ends(), id="a")
        await run.tell(Add("fail"))
        with pytest.raises(ValueError, match="gave up"):
            await run
        run = await engine.start(Ends(), id="b")
        assert await run.request(Total()) == ["1"]
        assert await run == 1
        run = await engine.start(Ends(), id="c")
        await run.tell(Add("nonsense"))
        assert await run.request(Total()) == ["1"]  # logged; the actor goes on
        await run


async def test_a_state_that_fails_fails_the_actor() -> None:
    class Bad(Actor[None]):
        def begin(self) -> Reading:
            return Reading("x")

        @segue.state
        async def reading(self, state: Reading) -> Listen:
            raise KeyError("state")

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Bad(), id="a")
        with pytest.raises(KeyError, match="state"):
            await run


async def test_again_and_waits_in_states() -> None:
    class Loop(Actor[list[int]]):
        seen: list[int] = segue.field(default_factory=list)

        def begin(self) -> Counting:
            return Counting("x", 3)

        @segue.state
        async def counting(self, state: Counting) -> Counting | Again | Done[list[int]]:
            await segue.sleep(timedelta(days=1))
            self.seen.append(await do(len(self.seen)))
            return Again() if len(self.seen) < state.left else Done(self.seen)

    @segue.step
    async def do(n: int) -> int:
        S.append(f"{n}")
        return n * 10

    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(Loop(), id="a") == [0, 10, 20]
    assert S == ["0", "1", "2"]


async def test_asks_and_children_of_two_turns_arent_mixed_up() -> None:
    @segue.flow
    async def child(n: int) -> int:
        await segue.sleep(timedelta(hours=n))
        return n

    class Asker(Actor[None]):
        got: list[str] = segue.field(default_factory=list)

        @segue.on
        async def add(self, note: Add) -> None:
            await segue.spawn(child(1))  # nobody waits for it
            lost = asyncio.create_task(segue.ask(f"lost {note.text}?"))
            self.got.append(await segue.ask(f"{note.text}?"))
            lost.cancel()

        @segue.on
        async def total(self, request: Total) -> list[str]:
            return self.got

    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Asker(), id="a")
        for n in range(3):
            await run.tell(Add(f"q{n}"))
        for n in range(3):
            while not (asks := [ask for ask in await engine.open_asks() if ask.question == f"q{n}?"]):
                await asyncio.sleep(0.001)
            await asks[0].answer(f"a{n}")
        assert await run.request(Total()) == ["a0", "a1", "a2"]
        assert not await engine.open_asks()


async def test_a_cancelled_actor() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Clerk("Ada"), id="ada")
        await desk.parked("ada")
        await run.cancel()
        assert (await engine.wait("ada")).status == "cancelled"


async def test_fields_that_dont_fit() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        with pytest.raises(InvalidValue, match=r"Clerk\.name: expected str"):
            await engine.start(Clerk(7), id="ada")  # type: ignore[arg-type]  # on purpose


async def test_mode_of_a_handler() -> None:
    class Modal(Actor[None]):
        @segue.on(mode="batch")
        async def say(self, request: Say) -> str:
            return await segue.generate(request.text)

        @segue.on
        async def add(self, note: Add) -> None:
            await segue.generate(note.text)

    desk = Desk()
    desk.fake.when("").reply("ok")
    async with desk.engine() as engine:
        run = await engine.start(Modal(), id="a")
        await run.tell(Add("x"))
        assert await run.request(Say("y")) == "ok"
        usage = {use.lane: use.calls for use in (await desk.head("a")).usage}
    assert usage == {"live": 1, "batch": 1}


class ByHand(segue.Actor[None]):
    total: int = 0

    def __init__(self, start: int) -> None:
        self.total = start


class Forgetful(segue.Actor[None]):
    total: int = 0

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("actor", [ByHand(3), Forgetful()])
async def test_an_init_that_no_wake_could_call_is_refused_at_the_start(actor: segue.Actor[None]) -> None:
    async with segue.Engine("memory:") as engine:
        with pytest.raises(BadSignature, match=r"can't be made of its fields \(total\).*__post_init__"):
            await engine.start(actor, id="a")
        assert await engine.store.runs() == []


class Careless(Actor[None]):
    kept: int = 0
    spare: int = segue.field(durable=False, default=0)
    seen = 0

    @cached_property
    def name(self) -> str:
        return "x"

    @segue.on
    async def add(self, message: Add) -> None:
        self.seen += 1
        self.kept += len(self.name)
        self.spare = 1
        self._cache = 1


class Careful(Actor[None]):
    kept: int = 0

    def __post_init__(self) -> None:
        self.double = 2 * self.kept

    @segue.on
    async def add(self, message: Add) -> None:
        self.kept += 1
        self.double += 2


async def test_what_is_set_and_is_no_field_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async with segue.Engine() as engine:
        for actor in (Careless(), Careful()):
            run = await engine.start(actor)
            for _ in range(3):
                await run.tell(Add("x"))
            await run.interrupt()
            with pytest.raises(segue.errors.RunInterrupted):
                await run
    (said,) = [record.getMessage() for record in caplog.records]
    assert "actor Careless: self.seen was set and isn't kept" in said
