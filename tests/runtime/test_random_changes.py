"""Random code that waits, changed while it does: each call gets what is its own, and nothing is begun twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

import segue
from segue.runtime.handles import Ask
from segue.testing.fake_model import ModelCall
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
            return await segue.generate(f"line {text}.", mode="batch")
        case "live":
            return await segue.generate(f"live {text}.", mode="live")
        case "talk":
            return await segue.generate(f"talk {text}.", mode="batch", check=is_second)
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

    def new(self) -> tuple[str, str]:
        self.made += 1
        return self.draw.choice(KINDS), f"n{self.made}"

    def change(self) -> None:
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

    async def answer(self, engine: segue.Engine, share: float) -> bool:
        """Some of the open questions; whether there was one."""
        found: list[Ask] = await engine.open_asks()
        for ask in found:
            self.asked.setdefault(ask.question, set()).add(ask.id)
            if self.draw.random() < share:
                await ask.answer(f"to {ask.question}")
        return bool(found)


@pytest.mark.parametrize("seed", range(40))
async def test_each_call_gets_its_own(seed: int) -> None:
    world = World(seed)
    DONE.clear()
    PROGRAM[:] = [
        [world.new() for _ in range(world.draw.randint(1, 3))] for _ in range(world.draw.randint(1, 3))
    ]
    desk = Desk()
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
