"""What an actor's fields are when it has ended, for who looks at it: as its last turn left them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

import segue
from segue import Actor, Done, Fail, Interrupted, Note
from segue.model.entry import LEFT
from segue.runtime.proof import verify
from segue.runtime.wake.rebase import entries_of, standing_of
from segue.stores import open_store
from tests.runtime.lives import Desk


@dataclass
class Count:
    to: int


class Add(Note):
    text: str


class Stop(Note):
    how: str


@segue.step
async def looked_up(text: str) -> str:
    return text


class Counter(Actor[int]):
    """Changes its fields in the turn in which it ends."""

    to: int
    seen: list[str] = segue.field(default_factory=list)
    reached: int = 0
    scratch: int = segue.field(default=0, durable=False)

    def begin(self) -> Count | segue.Listen:
        return Count(self.to) if self.to else segue.Listen()

    @segue.state
    async def count(self, c: Count) -> segue.Again | Done[int]:
        self.reached += 1
        return Done(self.reached) if self.reached == c.to else segue.Again()

    @segue.on
    async def add(self, m: Add) -> None:
        self.seen.append(m.text)

    @segue.on
    async def stop(self, m: Stop) -> Done[int] | Fail:
        self.seen.append(await looked_up(m.how) if m.how == "waits" else m.how)
        if m.how == "raises":
            raise ValueError("no")
        return Fail(ValueError("gave up")) if m.how == "fail" else Done(len(self.seen))

    def failed(self, error: Exception) -> Fail:
        self.reached = -1
        return Fail(error)

    def interrupted(self) -> Interrupted:
        self.seen.append("interrupted")
        return Interrupted()


class Tidy(Counter):
    def teardown(self) -> None:
        self.seen.append("torn down")


async def fields_of(desk: Desk, id: str = "it") -> dict[str, Any]:
    standing = await standing_of(desk.store, id)
    assert standing is not None
    found: dict[str, Any] = msgspec.json.decode(standing.fields)
    return found


LONG, LONGER = "x" * 1500, "y" * 6000


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(
    ("adds", "how", "seen"),
    [
        ([], "done", ["done"]),
        ([], "waits", ["waits"]),
        ([], "fail", ["fail"]),
        ([], "raises", []),  # it was undone
        ([], "interrupt", ["interrupted"]),
        (["a", "b"], "done", ["a", "b", "done"]),
        (["a"], "waits", ["a", "waits"]),
        ([LONG], "done", [LONG, "done"]),
        ([LONG, LONGER], "waits", [LONG, LONGER, "waits"]),
        (["a"], LONGER, ["a", LONGER]),
        ([LONG, "b"], LONGER, [LONG, "b", LONGER]),
    ],
)
async def test_they_are_shown_as_they_ended(
    adds: list[str], how: str, seen: list[str], kind: str, tmp_path: Path
) -> None:
    for cls in (Counter, Tidy):
        for apart in (False, True):  # one after the other, or in one commit
            path = tmp_path / f"{cls.__name__}{apart}.db"
            desk = Desk(open_store(f"sqlite:{path}") if kind == "sqlite" else None)
            async with desk.engine() as engine:
                run = await engine.start(cls(0), id="it")
                for text in adds:
                    await run.tell(Add(text))
                    if apart:
                        await run.ping()
                await (run.interrupt() if how == "interrupt" else run.tell(Stop(how)))
                head = await engine.wait("it")
                if head.status == "done":
                    await verify.replay_stored(engine.worker, desk.store, head)
            found = await fields_of(desk)
            if cls is Counter:
                assert found == {"to": 0, "seen": seen, "reached": -1 if how == "raises" else 0}
            assert [entry.kind for entry in await entries_of(desk.store, "it") if entry.kind == LEFT] == []
            await desk.store.close()


@pytest.mark.parametrize("to", [1, 3])
async def test_a_states_last_turn(to: int) -> None:
    desk = Desk()
    async with desk.engine() as engine:
        assert await engine.run(Counter(to), id="it") == to
    assert (await fields_of(desk))["reached"] == to


async def test_what_changed_nothing_writes_nothing() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Idle(), id="it")
        await run.tell(Stop(""))
        await run
    loaded = await desk.store.load("it")
    assert loaded is not None
    assert loaded.journal == []


class Idle(Actor[None]):
    n: int = 7

    @segue.on
    async def stop(self, _: Stop) -> Done[None]:
        return Done()


async def test_it_goes_on_from_before_that_turn() -> None:
    desk = Desk()
    async with desk.engine() as engine:
        run = await engine.start(Counter(0), id="it")
        await run.tell(Add("a"))
        await run.ping()
        await run.tell(Stop("fail"))
        await engine.wait("it")
        assert (await fields_of(desk))["seen"] == ["a", "fail"]
        await engine.resume("it")
        await run.tell(Stop("done"))
        assert await run == 2
    assert (await fields_of(desk))["seen"] == ["a", "done"]
