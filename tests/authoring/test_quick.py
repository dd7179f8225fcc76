"""What a quick message's handler has done may be all there is to it, or not: judged by itself, and beside an engine.

Said too often, it loses what else was to be done, which shows far off; said too seldom, it only costs. So it is asked
here, and an engine that asks it is told no: that is always right.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import pytest

import segue
from segue.authoring.actor.definition import ActorDef
from segue.authoring.actor.handlers import Handler
from segue.authoring.actor.performing import Performer
from segue.authoring.actor.quick import Quick
from segue.authoring.context import Branch
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
            case "text":
                return "text"
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


class HereStub:
    definition: ActorDef = Clerk.__segue__  # type: ignore[attr-defined]  # set when the class is made
    turns = 3

    def write(self, turn: object) -> None: ...


@dataclass
class Parts:
    quick: Quick
    branch: Branch
    performer: Performer

    def is_plain(self, name: str, result: Any = None) -> bool:
        return self.quick.is_plain(HereStub.definition.handlers.messages[name], result)


def at_rest() -> Parts:
    """What carries out the messages of an actor for which nothing was recorded."""
    here, branch, unused = cast("Any", HereStub()), Branch(cast("Any", None), "/tell.3"), cast("Any", None)
    performer = Performer(here, unused, branch)
    return Parts(Quick(here, unused, performer, unused), branch, performer)


# ---------------------------------------------------------------- by itself
@pytest.mark.parametrize(
    ("name", "result", "plain"),
    [
        ("Tell", None, True),
        ("Tell", Working(), False),
        ("Tell", segue.Listen(), False),
        ("Tell", segue.Done("x"), False),
        ("Tell", 0, False),  # no state: the driver says so
        ("Ask", None, True),
        ("Ask", "text", True),
        ("Ask", "", True),
        ("Ask", Working(), True),  # an answer, whatever it is
        ("Ask", segue.Answer("text"), False),
        ("Ask", segue.Answer("text", then=Working()), False),
    ],
)
async def test_what_it_returned(name: str, result: Any, plain: bool) -> None:
    parts = at_rest()
    assert parts.is_plain(name, result) is plain


@pytest.mark.parametrize("name", ["Tell", "Ask"])
async def test_what_was_recorded(name: str) -> None:
    parts = at_rest()
    branch = parts.branch
    branch.n = 1
    assert not parts.is_plain(name)
    parts.performer.over()
    assert parts.is_plain(name)
    branch.timeouts = 1
    assert not parts.is_plain(name)
    parts.performer.over()
    assert parts.is_plain(name)
    branch.child("task")
    assert not parts.is_plain(name)


# ---------------------------------------------------------------- as an engine asks it
@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What it said, each time."""
    said: list[bool] = []
    is_plain = Quick.is_plain

    def judge(self: Quick, handler: Handler, result: Any) -> bool:
        said.append(is_plain(self, handler, result))
        return False

    monkeypatch.setattr(Quick, "is_plain", judge)
    monkeypatch.setattr(handling, "CALM", 10.0)  # it doesn't lie down meanwhile
    monkeypatch.setattr(handling, "REST", 20.0)
    return said


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        (Ask("nothing"), True),
        (Ask("text"), True),
        (Ask("answer"), False),
        (Ask("plain answer"), False),
        (Ask("task"), False),
        (Ask("timeout"), False),
        (Tell("nothing"), True),
        (Tell("state"), False),
        (Tell("listen"), False),
        (Tell("task"), False),
        (Tell("timeout"), False),
    ],
)
async def test_what_handlers_do(judged: list[bool], message: Any, plain: bool) -> None:
    async with asyncio.timeout(5), segue.Engine("memory:") as engine:
        clerk, awake = await engine.start(Clerk(), id="clerk"), cast("Any", engine.worker.awake)
        await clerk.request(Ask("nothing"))
        await until(lambda: awake["clerk"].handling.at_rest, within=2)
        judged.clear()
        await (clerk.request(message) if isinstance(message, Ask) else clerk.tell(message))
        await until(lambda: judged, within=2)
    assert judged == [plain]
