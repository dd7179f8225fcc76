"""Random code that waits, changed while it does: each call gets what is its own, and nothing is begun twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pytest

import segue
from segue.model.budget import STORE, Amount
from segue.ports.provider import RemoteJob
from segue.runtime.handles import Ask
from segue.testing.fake_model import ModelCall
from segue.testing.fake_provider import FakeProvider
from tests.runtime.lives import Desk

KINDS = ("ask", "line", "live", "talk", "child", "spawned", "mapped", "request", "told", "step", "nested")


class Say(segue.Request[str]):
    text: str


class Note(segue.Note):
    text: str


class Clerk(segue.Actor[None]):
    @segue.on
    async def note(self, message: Note) -> None:
        await done(message.text)

    @segue.on
    async def say(self, message: Say) -> str:
        await done(message.text)
        return await segue.ask(f"say {message.text}")


@dataclass
class Asking: ...


class Below(segue.Actor[str]):
    text: str

    def begin(self) -> Asking:
        return Asking()

    @segue.state
    async def ask(self, _: Asking) -> segue.Done[str]:
        await done(self.text)
        return segue.Done(await segue.ask(f"below {self.text}"))


DONE: Counter[str] = Counter()
LIVE: set[str] = set()  #: calls that went out as lines, and would be live by now
ENGINE: list[segue.Engine] = []
PROGRAM: list[list[tuple[str, str]]] = []


@segue.step
async def done(name: str) -> str:
    DONE[name] += 1
    return f"step {name}"


@segue.flow
async def mapped(text: str) -> str:
    await done(text)
    return await segue.ask(f"mapped {text}")


async def op(kind: str, text: str) -> str:
    match kind:
        case "ask":
            return await segue.ask(f"ask {text}")
        case "line":
            return await segue.generate(f"line {text}.", mode=mode_of(text))
        case "live":
            return await segue.generate(f"live {text}.", mode="live")
        case "talk":
            with segue.using(budget=segue.Budget(tokens=10_000)):
                return await segue.generate(f"talk {text}.", mode=mode_of(text), check=is_second)
        case "child":
            return await Below(text)
        case "spawned":
            return await (await segue.spawn(Below(text)))
        case "told":
            clerk = await ENGINE[-1].get("clerk")
            await clerk.tell(Note(text))
            return await segue.ask(f"told {text}")
        case "mapped":
            return (await segue.map(mapped, [text]))[0]
        case "request":
            clerk: Any = await ENGINE[-1].get("clerk")
            return await clerk.request(Say(text))
        case "nested":
            one, two = await asyncio.gather(segue.ask(f"one {text}"), segue.ask(f"two {text}"))
            return f"{one} {two}"
        case _:
            return await done(text)


def mode_of(text: str) -> Literal["live", "batch"]:
    return "live" if text in LIVE else "batch"


def is_second(text: str) -> None:
    if "?" in text:
        raise ValueError("say it without a question mark")


def result(kind: str, text: str) -> str:
    word = {"request": "say", "child": "below", "spawned": "below"}.get(kind, kind)
    return (
        f"to one {text} to two {text}"
        if kind == "nested"
        else f"{word} {text}"
        if kind == "step"
        else f"to {word} {text}"
    )


async def branch(ops: list[tuple[str, str]]) -> list[str]:
    return [await op(kind, text) for kind, text in ops]


@segue.flow(name="random code", version="1")
async def code() -> list[list[str]]:
    *found, _ = await asyncio.gather(*(branch(ops) for ops in PROGRAM), segue.receive(str))
    return found


class World:
    """A program and its changes, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.made = 0
        self.asked: dict[str, set[str]] = {}  # ids by question
        self.looks: dict[str, int] = {}  # by batch, how often it isn't done yet when it is looked at

    def new(self) -> tuple[str, str]:
        self.made += 1
        return self.draw.choice(KINDS), f"n{self.made}"

    def change(self) -> None:
        LIVE.update(text for ops in PROGRAM for _, text in ops if self.draw.random() < 0.3)
        for _ in range(self.draw.randint(1, 3)):
            ops = self.draw.choice(PROGRAM)
            match self.draw.randrange(8):
                case 0 | 1 if ops:
                    ops.pop(self.draw.randrange(len(ops)))
                case 2 | 3 if len(ops) > 1:
                    at = self.draw.randrange(len(ops) - 1)
                    ops[at : at + 2] = reversed(ops[at : at + 2])
                case 4:
                    self.draw.shuffle(PROGRAM)
                case 5 if len(PROGRAM) > 1:
                    PROGRAM.pop(self.draw.randrange(len(PROGRAM)))
                case 6:
                    PROGRAM.insert(self.draw.randint(0, len(PROGRAM)), [self.new()])
                case _:
                    ops.insert(self.draw.randint(0, len(ops)), self.new())

    def is_done(self, batch: str) -> bool:
        """Some batches take long."""
        left = self.looks[batch] = self.looks.get(batch, self.draw.randint(0, 40)) - 1
        return left < 0

    async def answer(self, engine: segue.Engine, share: float) -> bool:
        """Some of the open questions; whether there was one."""
        found: list[Ask] = await engine.open_asks()
        for ask in found:
            self.asked.setdefault(ask.question, set()).add(ask.id)
            if self.draw.random() < share:
                await ask.answer(f"to {ask.question}")
        return bool(found)


@pytest.mark.parametrize("seed", range(60))
async def test_each_call_gets_its_own(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(seed)
    poll = FakeProvider.poll

    async def slow(self: FakeProvider, job: str) -> RemoteJob:
        seen = await poll(self, job)
        return seen if world.is_done(job) else msgspec.structs.replace(seen, status="in_progress", over=False)

    monkeypatch.setattr(FakeProvider, "poll", slow)
    DONE.clear()
    LIVE.clear()
    PROGRAM[:] = [
        [world.new() for _ in range(world.draw.randint(1, 3))] for _ in range(world.draw.randint(1, 3))
    ]
    desk = Desk(budget=segue.Budget(tokens=100_000))
    desk.fake.when("line").reply(lambda call: f"to {call.text.rstrip('.')}")
    desk.fake.when("live").reply(lambda call: f"to {call.text.rstrip('.')}")
    desk.fake.when("talk").reply(talk)
    for life in range(5):
        async with desk.engine() as engine:
            ENGINE[:] = [engine]
            if life == 0:
                await engine.start(Clerk(), id="clerk")
                await engine.start(code(), id="it")
            for _ in range(world.draw.randint(1, 4)):
                head = await settled(desk)
                if head.status == "held":
                    await engine.resume("it")
                    head = await settled(desk)
                await world.answer(engine, world.draw.random())
        world.change()
    async with desk.engine() as engine:
        ENGINE[:] = [engine]
        await engine.tell("it", "str", b'"go"')
        async with asyncio.timeout(10):
            while (head := await settled(desk)).status != "done":
                if head.status == "held":
                    await engine.resume("it")
                await world.answer(engine, 1.0)
                await asyncio.sleep(0.001)
        assert await (await engine.get("it")) == [[result(*each) for each in ops] for ops in PROGRAM]
        while await engine.store.line_counts(open_only=True):
            await asyncio.sleep(0.001)
        standings = {one.id: one for one in await engine.store.budgets()}
        uses = [*(await desk.head()).usage, *await engine.store.unclaimed()]
    assert {one.reserved for one in standings.values()} <= {Amount()}
    if uses:
        assert standings[STORE].spent.tokens == sum(use.input_tokens + use.output_tokens for use in uses)
    assert set(DONE.values()) <= {1}
    assert set(desk.fake.remote.sent.values()) <= {1}
    prompts = Counter(call.text for call in desk.fake.calls)
    assert set(prompts.values()) <= {1}, prompts
    assert {question: ids for question, ids in world.asked.items() if len(ids) > 1} == {}


def talk(call: ModelCall) -> str:
    first, *more = call.texts()
    return f"to {first.rstrip('.')}" + ("" if more else "?")


async def settled(desk: Desk) -> Any:
    for _ in range(20):
        await asyncio.sleep(0.002)
        head = await desk.head()
        if head.status in ("held", "done"):
            return head
    return head
