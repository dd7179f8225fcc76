"""What a quick message's handler has done may be all there is to it, or not.

Said too often, that loses what else was to be done, which shows far off; said too seldom, it only costs.
"""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from types import coroutine
from typing import Any, cast

import pytest

import segue
from segue.authoring.actor import driver
from segue.authoring.actor.quick import Odd, Quick
from segue.runtime.wake import handling
from tests.runtime.lives import until


@dataclass
class Working:
    """The state that the handlers below lead to."""


class Tell(segue.Note):
    how: str


class Ask(segue.Request[str | None]):
    how: str


@segue.step
async def fetch() -> str:
    return "fetched"


class Clerk(segue.Actor[str]):
    @segue.on
    async def tell(self, m: Tell) -> Any:
        return await self.carry_out(m.how)

    @segue.on
    async def ask(self, m: Ask) -> Any:
        return await self.carry_out(m.how)

    async def carry_out(self, how: str) -> Any:
        match how:
            case "text" | "":
                return how
            case "step":
                await fetch()
            case "done":
                return segue.Done("x")
            case "state":
                return Working()
            case "listen":
                return segue.Listen()
            case "answer":
                return segue.Answer("text", then=Working())
            case "plain answer":
                return segue.Answer("text")
            case "task":
                self.task = asyncio.create_task(fetch())
            case "timeout":
                async with asyncio.timeout(1):
                    pass
        return None

    @segue.state
    async def work(self, s: Working) -> segue.Listen:
        return segue.Listen()


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What was plain, each time."""
    said: list[bool] = []
    carry_out = Quick.carry_out

    def judge(self: Quick, posts: Any, turn: Any) -> Odd | None:
        odd = carry_out(self, posts, turn)
        said.append(odd is None)
        return odd

    monkeypatch.setattr(Quick, "carry_out", judge)
    monkeypatch.setattr(handling, "CALM", 10.0)  # it doesn't lie down meanwhile
    monkeypatch.setattr(driver, "MOMENT", 10.0)  # nor does it park, as it does after a turn that took long
    monkeypatch.setattr(handling, "REST", 20.0)
    return said


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        (Ask("nothing"), True),
        (Ask("text"), True),
        (Ask(""), True),
        (Ask("state"), True),  # an answer, whatever it is
        (Ask("done"), False),  # and that can't be one
        (Ask("answer"), False),
        (Ask("plain answer"), False),
        (Ask("task"), False),
        (Ask("timeout"), False),
        (Ask("step"), False),
        (Tell("nothing"), True),
        (Tell("text"), False),  # no state: the driver says so
        (Tell("done"), False),
        (Tell("state"), False),
        (Tell("listen"), False),
        (Tell("task"), False),
        (Tell("timeout"), False),
        (Tell("step"), False),
    ],
)
async def test_what_handlers_do(judged: list[bool], message: Any, plain: bool) -> None:
    async with asyncio.timeout(5), segue.Engine("memory:") as engine:
        clerk, awake = await engine.start(Clerk(), id="clerk"), cast("Any", engine.worker.awake)
        await clerk.request(Ask("nothing"))
        await until(lambda: awake["clerk"].handling.at_rest, within=2)
        judged.clear()
        if isinstance(message, Ask):
            with suppress(segue.errors.NotEncodable, segue.errors.InvalidValue):
                await clerk.request(message)
        else:
            await clerk.tell(message)
        await until(lambda: judged, within=2)
    assert judged == [plain]


class Careless(segue.Actor[str]):
    """It clears the frames of its errors, as unittest does with those that a test expects."""

    @segue.on
    async def ask(self, m: Ask) -> str:
        if m.how == "wrong":
            raise ValueError(m.how)
        return m.how

    def failed(self, error: Exception) -> None:
        traceback.clear_frames(error.__traceback__)


async def test_who_clears_the_frames_of_an_error_has_the_next_message_all_the_same() -> None:
    async with segue.Engine("memory:") as engine:
        careless = await engine.start(Careless(), id="careless")
        for _ in range(2):
            assert await careless.request(Ask("fine")) == "fine"
            with pytest.raises(ValueError, match="wrong"):
                await careless.request(Ask("wrong"))


class Awaitable:
    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return "awaited"


@coroutine
def generated() -> Generator[Any, None, str]:
    yield from ()
    return "generated"


def raises() -> Any:
    raise ValueError("wrong")


@pytest.mark.parametrize(
    ("stands_in", "comes"),
    [
        (Awaitable, "awaited"),
        (generated, "generated"),
        (raises, ValueError("wrong")),
        (lambda: None, TypeError("NoneType")),
    ],
)
async def test_what_stands_in_for_a_handler(
    monkeypatch: pytest.MonkeyPatch, stands_in: Callable[[], Any], comes: str | Exception
) -> None:
    async with segue.Engine("memory:") as engine:
        careless = await engine.start(Careless(), id="careless")
        assert await careless.request(Ask("fine")) == "fine"
        with monkeypatch.context() as patch:
            patch.setattr(Careless, "ask", lambda *_: stands_in())
            for _ in range(2):
                if isinstance(comes, str):
                    assert await careless.request(Ask("")) == comes
                else:
                    with pytest.raises(type(comes), match=str(comes)):
                        await careless.request(Ask(""))
        assert await careless.request(Ask("fine")) == "fine"


class Held(segue.Request[int]): ...


READ: list[weakref.ref[Ask]] = []


class Reader(segue.Actor[str]):
    @segue.on
    async def ask(self, m: Ask) -> str:
        READ.append(weakref.ref(m))
        if m.how == "wrong":
            raise ValueError(m.how)
        return m.how

    @segue.on
    async def held(self, m: Held, reply: segue.Responder[int]) -> None:  # so the driver carries it out
        await reply.send(len([message for message in READ if message() is not None]))


async def test_nothing_of_earlier_messages_is_held_while_another_is_carried_out() -> None:
    READ.clear()
    async with segue.Engine("memory:") as engine:
        reader = await engine.start(Reader(), id="reader")
        for _ in range(3):
            assert await reader.request(Ask("large")) == "large"
        assert await reader.request(Held()) == 0
    assert len(READ) == 3


async def test_an_error_holds_nothing_until_the_garbage_collector_comes() -> None:
    READ.clear()
    gc.collect()
    gc.disable()
    try:
        async with segue.Engine("memory:") as engine:
            reader = await engine.start(Reader(), id="reader")
            for _ in range(3):
                with suppress(ValueError):
                    await reader.request(Ask("wrong"))
            assert await reader.request(Held()) == 0
        assert len(READ) == 3
    finally:
        gc.enable()
