"""The types of actors, as both type checkers see them. Nothing here is run: `make check` reads it."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TypeVar, assert_type

import segue
from segue import Actor, Again, Answer, Done, Listen, Note, Request, fallback, on, state


class Floor(Enum):
    HALL = 1


@dataclass
class Going:
    n: int


class Ask(Request[str]):
    text: str


class Tell(Note):
    n: int = 0


class Fixed(Request[int], frozen=True, kw_only=True):
    n: int


class MixedIn(Actor, kw_only=True):  # of whatever result the class has
    count: int = 0


class Counted(MixedIn, Actor[str]):
    name: str


class Typed(Actor[int]):
    name: str
    seen: list[str] = segue.field(default_factory=list)
    scratch: int = segue.field(default=0, durable=False)

    def begin(self) -> Going:
        return Going(1)

    @state(every=timedelta(minutes=1), retry=3, timeout=timedelta(hours=1), mode="batch")
    async def go(self, going: Going) -> Again | Done[int]:
        return Done(going.n)

    @fallback
    async def mend(self, going: Going, error: OSError) -> Listen:
        return Listen()

    @on
    async def ask(self, request: Ask) -> str | Answer[str]:
        return Answer(request.text, then=Going(2))

    @on
    async def forward(self, note: Tell) -> None:
        assert_type(self.me, segue.Run[int])
        assert_type(self.me.id, str)
        assert_type(self.me.request(Ask("x")), segue.Exchange[str])
        assert_type(await self.me.request(Ask("x")), str)
        assert_type(self.me.recipient(Tell), segue.Recipient[Tell])
        assert_type(self.me.recipient(Tell | Ask), segue.Recipient[Tell | Ask])
        await self.me.tell(note, after=timedelta(minutes=1))
        await self.me.tel(note)  # type: ignore[attr-defined]
        self.me = self.me  # type: ignore[misc]

    async def led(self, request: Ask) -> Answer[str, Going]:
        return Answer(request.text, then=Going(2))

    async def misled(self, request: Ask) -> Answer[str, Going]:
        return Answer(request.text, then="")  # type: ignore[arg-type]

    @on(retry=segue.Retry(2))
    async def tell(self, note: Tell | Fixed) -> None: ...

    @state(evry=timedelta(minutes=1))  # type: ignore[call-overload, untyped-decorator, unused-ignore]
    async def wrong(self, going: Going) -> Listen:
        return Listen()


@segue.step
async def length(text: str) -> int:
    return len(text)


async def made() -> None:
    actor = Typed("x", seen=["y"])
    assert_type(actor.name, str)
    Typed()  # type: ignore[call-arg]
    Typed("x", seen=3)  # type: ignore[arg-type]
    Ask(3)  # type: ignore[arg-type]
    assert_type(Tell().n, int)
    Fixed(n=1).n = 2  # type: ignore[misc]
    Fixed(1)  # type: ignore[call-arg]
    assert_type(await actor.go(Going(1)), Again | Done[int])


async def outside(engine: segue.Engine, items: Sequence[str]) -> None:
    assert_type(await engine.run(Typed("x")), int)
    print(await engine.run(Typed("x")))  # what is wanted is an object, which an int is
    run = await engine.start(Typed("x"), id="a", mode="live")
    assert_type(run, segue.Run[int])
    assert_type(await run, int)
    assert_type(await run.request(Ask("x")), str)
    await run.tell(Tell(1), after=timedelta(hours=1), key="k")
    await run.interrupt(segue.Interrupt.AFTER_HANDLER)
    assert_type(await engine.run(length("x")), int)
    assert_type(await engine.map(length, items), list[int])
    assert_type(await engine.map(Typed, items), list[int])


async def inside(items: Sequence[str]) -> None:
    assert_type(await Typed("x"), int)
    assert_type(await segue.map(Typed, items), list[int])
    assert_type(await segue.map(length, items), list[int])
    assert_type(await segue.spawn(Typed("x"), id="b"), segue.Run[int])
    await segue.spawn(Typed("x"), group=Floor.HALL)
    await segue.spawn(Typed("x"), group=(Floor.HALL, "flat 2"), restart="permanent")
    assert_type(await segue.spawn(length("x")), segue.Run[int])
    assert_type(segue.diagram(Typed, at="Going"), str)


signal = segue.kind("signal")


class Signal(segue.Envelope):
    urgent = True
    by: int = 1

    async def carry_out(self, actor: object, turn: segue.Turn) -> object:
        await turn.settled()
        return await turn.handler("signal", type(self))(self)


class Timed(Actor[int], kw_only=True):
    count: int = 0

    async def perform(self, work: segue.Work) -> object:
        assert_type(work.name, str)
        self.count += 1
        return await work()

    async def setup(self) -> None:
        assert_type(self.me, segue.Run[int])

    def teardown(self) -> None: ...
    async def failed(self, error: Exception) -> Listen | None: ...

    @signal
    async def on_signal(self, s: Signal) -> None:
        self.count += s.by


class Both(Timed, Typed):
    extra: str = ""

    def address(self) -> segue.Run[int]:
        return self.me


R = TypeVar("R")


class Mixed(Actor[R], kw_only=True):
    """To be mixed in, with the result of what it is mixed into."""

    mixed: int = 0

    def address(self) -> segue.Run[R]:
        return self.me


class First(Mixed[int], Typed): ...


class Alone(Mixed[list[int]]): ...


async def mixed() -> None:
    assert_type(await First("x"), int)
    assert_type(First("x").address(), segue.Run[int])
    assert_type(await Alone(), list[int])


class Loose(Actor):
    def address(self) -> str:
        return self.me.id


class Last(Typed, Loose): ...


async def mixed_in_last() -> None:
    assert_type(await Last("x"), int)


def program(run: segue.Run[int], levels: list[segue.Interrupt]) -> AbstractAsyncContextManager[None]:
    segue.interruptible()  # type: ignore[call-arg]
    return segue.interruptible(run, tell=levels.append)
