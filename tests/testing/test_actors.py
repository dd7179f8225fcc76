"""Actors under `check`, `rerun` and verification."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Actor, Again, Done, Note, Request
from segue.core import export
from segue.errors import ReplayMismatch, ResultMismatch
from segue.runtime.wake.rebase import entries_of
from segue.testing import FakeModel, check, rerun
from tests.runtime.lives import Desk

CHANCE: list[float] = []


@dataclass
class Ticket:
    text: str
    rounds: int = 0


@dataclass
class Drafted:
    draft: str


class Writer(Actor[str]):
    ticket: str
    seen: list[str] = segue.field(default_factory=list)

    async def setup(self) -> None:
        self.seen.append(await look_up(self.ticket))

    def begin(self) -> Ticket:
        return Ticket(self.ticket)

    @segue.state(every=timedelta(minutes=1))
    async def write(self, t: Ticket) -> Drafted | Again:
        t.rounds += 1
        self.seen.append(await segue.generate(f"Draft {t.rounds}: {t.text}"))
        return Drafted(self.seen[-1]) if t.rounds == 2 else Again()

    @segue.state
    async def review(self, s: Drafted) -> Done[str] | Ticket:
        ok = await segue.ask("Send?", show=s.draft, returns=bool)
        return Done(f"{s.draft} {self.seen[0]} {await helped(s.draft)}") if ok else Ticket("again")


@segue.step
async def look_up(text: str) -> str:
    return text.upper()


class Improve(Request[str]):
    text: str


class Stop(Note):
    pass


class Helper(Actor[None]):
    @segue.on
    async def improve(self, request: Improve) -> str:
        return await segue.generate(f"Improve {request.text}")

    @segue.on
    async def stop(self, _: Stop) -> Done[None]:
        return Done()


@segue.flow
async def helped(text: str) -> str:
    helper = await segue.spawn(Helper())
    better = await helper.request(Improve(text))
    await helper.tell(Stop())
    return better


def model() -> FakeModel:
    fake = FakeModel().when("Draft").reply(lambda call: call.text[-8:]).when("Improve").reply("better")
    return fake.answer("Send?", True)


async def test_an_actor_is_checked_as_a_flow_is() -> None:
    report = await check(Writer, ["one thing", "another"], model=model())
    assert report.waves
    assert report.kills > 50


class House(Enum):
    ROOM = 1


@segue.flow
async def guest(question: str) -> str:
    return await segue.ask(question)


class Host(Actor[str]):
    groups = House

    def begin(self) -> Ticket:
        return Ticket("")

    @segue.state
    async def receive(self, _: Ticket) -> Done[str]:
        first = await segue.spawn(guest("Well?"), group=House.ROOM)
        return Done(await first + await segue.ask("And?"))


async def test_a_supervisor_whose_child_ends_while_its_handler_waits() -> None:
    await check(Host, model=FakeModel().answer("Well?", "fine").answer("And?", "bye"))


async def test_check_finds_a_handler_that_isnt_the_same_twice() -> None:
    class Fickle(Actor[str]):
        ticket: str

        def begin(self) -> Ticket:
            return Ticket(self.ticket)

        @segue.state
        async def write(self, t: Ticket) -> Done[str]:
            CHANCE.append(random.random())
            await segue.sleep(timedelta(hours=1))
            return Done(await segue.generate(f"Draft {CHANCE[-1]}"))

    with pytest.raises(AssertionError, match=r"generate"):
        await check(Fickle, ["x"], model=FakeModel().when("Draft").reply("x"))


async def test_the_last_state_is_verified() -> None:
    class Odd(Actor[float]):
        def begin(self) -> Ticket:
            return Ticket("x")

        @segue.state
        async def write(self, t: Ticket) -> Done[float]:
            await look_up(t.text)
            return Done(random.random())

    async with FakeModel():
        with pytest.raises(ResultMismatch):
            await Odd()


async def exported(path: Path, run: Any, desk: Desk) -> str:
    loaded = await desk.store.load(run.id)
    assert loaded is not None
    lines = export.write(loaded.head, await entries_of(desk.store, run.id), loaded.checkpoint)
    file = path / "run.jsonl"
    file.write_bytes(b"\n".join(lines))
    return str(file)


async def test_an_exported_actor_is_replayed_through_todays_code(tmp_path: Path) -> None:
    desk = Desk()
    desk.fake = model()
    async with desk.engine() as engine:
        run = await engine.start(Writer("one thing"), id="w")
        await run
    file = await exported(tmp_path, run, desk)
    await rerun(Writer, file)

    kept = Writer.review

    @segue.state
    async def review(self: Writer, s: Drafted) -> Done[str] | Ticket:
        ok = await segue.ask("Really send?", show=s.draft, returns=bool)
        return Done(s.draft) if ok else Ticket("again")

    Writer.review = review  # type: ignore[method-assign]  # the code has changed
    try:
        with pytest.raises(ReplayMismatch, match=r"ask|Send"):
            await rerun(Writer, file)
    finally:
        Writer.review = kept  # type: ignore[method-assign]  # as it was
