"""Random actors that talk to each other, killed and parked at random: each message is handled once, and in order.

What is told is a program that its receiver carries out, and that tells more. So each message there will ever be
is known beforehand, and each actor's log says what it handled.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.model.errors import RunCancelled
from segue.ports.store import Store
from segue.runtime.engine import Engine
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel
from segue.testing.crash import Mortal
from segue.testing.fake_model import FakeEngine
from tests.runtime.delayed import Delayed

#: An act: what, its name, and what belongs to it.
Act = list[Any]
MS = timedelta(milliseconds=1)


class Go(segue.Note):
    id: str
    acts: list[Any]


class Question(segue.Request[str]):
    id: str
    acts: list[Any]


class Slow(segue.Request[str]):
    """One that is answered in a later turn."""

    id: str
    acts: list[Any]


class Answer(segue.Note):
    id: str


class Report(segue.Note):
    id: str


class Urgent(segue.Envelope):
    urgent = True
    id: str

    async def carry_out(self, actor: Any, turn: segue.Turn) -> object:
        actor.log.append(self.id)
        return None


class Look(segue.Request[dict[str, Any]]): ...


@dataclass
class Counted:
    by: str
    n: int


class Counts(segue.Subscription[int, Counted]): ...


@dataclass
class Then:
    id: str
    acts: list[Any]


class Group(enum.IntEnum):
    FIRST = 1
    LAST = 2


@segue.step(name="actors.work")
async def work(id: str) -> str:
    await asyncio.sleep(0)
    return id


@segue.flow(name="actors.errand", version="1")
async def errand(id: str) -> str:
    await work(id)
    return await work(id)


@segue.flow(name="actors.listener", version="1")
async def listener() -> None:
    await segue.receive(str)


def at(name: str) -> segue.Run[Any]:
    return segue.Run(None, name)


async def carry_out(acts: list[Act], me: Node | None) -> Then | None:
    """What a handler does. None: who sends the first messages."""
    for what, id, *more in acts:
        match what, more:
            case "tell", [to, inner]:
                await at(to).tell(Go(id, inner))
            case "later", [to, inner, ms]:
                await at(to).tell(Go(id, inner), after=ms * MS)
            case "instead", [to, inner]:
                await at(to).tell(Go(f"{id} is replaced", []), after=5000 * MS, key=id)
                await at(to).tell(Go(id, inner), after=20 * MS, key=id)
            case "urgent", [to]:
                await at(to).tell(Urgent(id))
            case "ask", [to, inner]:
                assert await at(to).request(Question(id, inner)) == id
            case "ask slowly", [to, inner]:
                assert await at(to).request(Slow(id, inner)) == id
            case "ask and tell", [to, inner, second]:
                asks, tells = at(to).request(Question(id, inner)), at(to).tell(Go(*second))
                assert await asyncio.gather(asks, tells) == [id, None]
            case "forward", [to, inner]:
                await at(to).request(Question(id, inner)).forward(tag=id)
            case "work", _:
                assert await work(id) == id
            case "say", _:
                assert await segue.generate(f"say {id}") == f"said {id}"
            case "sleep", [ms]:
                await segue.sleep(ms * MS)
            case "errand", _:
                assert await (await segue.spawn(errand(id))) == id
            case "call off", _:
                run = await segue.spawn(listener())
                await run.cancel()
                with pytest.raises(RunCancelled):
                    await run
            case "at once", parts:
                await asyncio.gather(*[carry_out(part, me) for part in parts])
            case "count", _ if me is not None:
                me.count += 1
                await segue.publish(Counts, Counted(me.name, me.count))
            case "follow", [whom] if me is not None:
                if whom not in me.follows:
                    me.follows[whom] = [(await at(whom).subscribe(Counts())).snapshot]
            case "child", [number, inner] if me is not None:
                group = Group.LAST if number % 2 else Group.FIRST
                child = await segue.spawn(Child(me.me), id=f"{me.name}/{number}", group=group)
                await child.tell(Go(id, inner))
            case "fail", _:
                raise ValueError(id)
            case "go on", [inner]:
                return Then(id, inner)
            case _:
                raise AssertionError(what)
    return None


class Child(segue.Actor[None]):
    """One that begins anew at times, and tells its supervisor what it handles."""

    boss: segue.Run[Any]

    @segue.on
    async def go(self, told: Go) -> segue.Fail | None:
        await self.boss.tell(Report(told.id))
        await carry_out(told.acts, None)
        return segue.Fail(ValueError(told.id)) if int(told.id) % 3 == 0 else None


class Node(segue.Actor[None]):
    name: str
    log: list[str] = segue.field(default_factory=list)
    count: int = 0
    follows: dict[str, list[int]] = segue.field(default_factory=dict)
    kept: dict[str, segue.Responder[str]] = segue.field(default_factory=dict)
    groups = Group
    restart = segue.Restart("one", times=1000, within=timedelta(minutes=1), backoff=5 * MS)

    @segue.on
    async def go(self, told: Go) -> Then | None:
        self.log.append(told.id)
        return await carry_out(told.acts, self)

    @segue.on
    async def question(self, asked: Question) -> str:
        self.log.append(asked.id)
        await carry_out(asked.acts, self)
        return asked.id

    @segue.on
    async def slow(self, asked: Slow, reply: segue.Responder[str]) -> None:
        self.log.append(asked.id)
        self.kept[asked.id] = reply
        await self.me.tell(Answer(asked.id))
        await carry_out(asked.acts, self)

    @segue.on
    async def answer(self, told: Answer) -> None:
        await self.kept.pop(told.id).send(told.id)

    @segue.on
    async def response(self, came: segue.Response[Question]) -> None:
        assert came.value == came.tag
        self.log.append(f"{came.tag} answered")

    @segue.on
    async def report(self, told: Report) -> None:
        self.log.append(told.id)

    @segue.state
    async def then(self, next: Then) -> Then | segue.Listen:
        self.log.append(next.id)
        return await carry_out(next.acts, self) or segue.Listen()

    @segue.on
    async def counts(self, _: Counts) -> int:
        return self.count

    @segue.on
    async def counted(self, event: Counted) -> None:
        self.follows[event.by].append(event.n)

    @segue.on
    async def look(self, _: Look) -> dict[str, Any]:
        return {"log": self.log, "count": self.count, "follows": self.follows}


class Narrow(Node):
    mailbox = segue.Mailbox(2, full="wait")


@segue.flow(name="actors.first", version="1")
async def first(acts: list[Any]) -> None:
    await carry_out(acts, None)


class Plan:
    """A random program, and what must come of it."""

    def __init__(self, seed: int) -> None:
        self.r, self._last, self._size, self._fails = random.Random(seed), 0, 0, 0
        self.nodes = [f"n{number}" for number in range(self.r.randint(1, 4))]
        self.logs: dict[str, set[str]] = {name: set() for name in self.nodes}
        self.urgent: set[str] = set()
        self.failing: set[str] = set()
        self.told: list[tuple[str, str, str]] = []  # by whose program, what and to whom, in order
        self.program = self._acts(-1, "", 0)

    def _id(self) -> str:
        self._last += 1
        return str(self._last)

    def _to(self, id: str, but: int = -1) -> tuple[int, str]:
        """Somebody who is to handle that; after one of them, so that no two wait for each other."""
        number = self.r.randrange(but + 1, len(self.nodes))
        self.logs[self.nodes[number]].add(id)
        return number, self.nodes[number]

    def _acts(self, me: int, by: str, depth: int, *, apart: bool = False) -> list[Act]:
        """What number `me` does in the program `by`. `apart`: beside others, or in a child."""
        acts = list[Act]()
        for _ in range(self.r.choice([0, 1, 1, 2, 3]) if depth else 6):
            self._size += 1
            if self._size < 120:
                acts += self._act(self._id(), me, by, depth, apart)
        return acts

    def _act(self, id: str, me: int, by: str, depth: int, apart: bool) -> list[Act]:
        r, above = self.r, me < len(self.nodes) - 1
        kind = r.choices(
            (
                "tell",
                "later",
                "instead",
                "urgent",
                "ask",
                "ask and tell",
                "forward",
                "here",
                "at once",
                "own",
                "child",
            ),
            (25, 5, 3, 5, 10, 5, 7 * (me >= 0), 25, 6, 12 * (me >= 0), 4 * (me >= 0 and not apart)),
        )[0]
        if depth > 4 or (kind in ("ask", "ask and tell", "forward") and not above):
            kind = "here"
        match kind:
            case "tell" | "later":
                number, to = self._to(id)
                if kind == "tell" and not apart:
                    self.told.append((by, id, to))
                more = [] if kind == "tell" else [r.choice([0, 1, 20, 3000])]
                return [[kind, id, to, self._note(number, id, depth), *more]]
            case "instead":
                number, to = self._to(id)
                return [[kind, id, to, self._acts(number, id, depth + 1)]]
            case "urgent":
                self.urgent.add(id)
                return [[kind, id, r.choice(self.nodes)]]
            case "ask and tell":
                (number, to), second = self._to(id, me), self._id()
                self.logs[to].add(second)
                if not apart:
                    self.told += [(by, id, to), (by, second, to)]
                inner = self._acts(number, id, depth + 1)
                return [[kind, id, to, inner, [second, self._note(number, second, depth)]]]
            case "ask" | "forward":
                number, to = self._to(id, me)
                if kind == "forward":
                    self.logs[self.nodes[me]].add(f"{id} answered")
                else:
                    kind = r.choice(["ask", "ask slowly"])
                return [[kind, id, to, self._acts(number, id, depth + 1)]]
            case "at once":
                return [[kind, id, *[self._acts(me, by, depth + 1, apart=True) for _ in range(2)]]]
            case "own" if not self._fails:
                others = [name for name in self.nodes if name != self.nodes[me]]
                if others and not apart and r.random() < 0.4:
                    return [["follow", id, r.choice(others)]]
                return [["count", id]]
            case "child":
                self.logs[self.nodes[me]].add(id)
                return [[kind, id, r.randrange(3), self._acts(-1, id, depth + 1, apart=True)]]
        what = r.choice(["work", "work", "say", "sleep", "errand", "call off"])
        return [[what, id, r.choice([1, 10, 5000])]]

    def _note(self, number: int, id: str, depth: int) -> list[Act]:
        """The program of a note, which may fail or go on in a state."""
        chance = self.r.random()
        if chance < 0.08:
            self.logs[self.nodes[number]].discard(id)
            self.failing.add(id)
            self._fails += 1
            acts = self._acts(number, id, depth + 1)
            self._fails -= 1
            return [*acts, ["fail", id]]
        acts = self._acts(number, id, depth + 1)
        if chance < 0.28 and depth < 4:
            next = self._id()
            self.logs[self.nodes[number]].add(next)
            acts.append(["go on", next, self._acts(number, next, depth + 1)])
        return acts

    def odd(self, seen: dict[str, Any], dead: int) -> list[str]:
        """What isn't as it must be."""
        odd = [] if dead == len(self.failing) else [f"{dead} dead letters for {self.failing}"]
        handled = {id for one in seen.values() for id in one["log"]}
        if not self.failing and (missing := self.urgent - handled):  # what fails undoes what came beside it
            odd.append(f"urgent ones never came: {missing}")
        for name, one in seen.items():
            log = [id for id in one["log"] if not id.endswith("is replaced")]
            if len(log) > len(set(log)):
                odd.append(f"{name} handled one twice: {log}")
            if (got := set(log) - self.urgent) != (want := self.logs[name]):
                odd.append(f"{name} lacks {want - got}, and has {got - want}")
            for whom, counts in one["follows"].items():
                if counts != list(range(counts[0], seen[whom]["count"] + 1)):
                    odd.append(f"{name} heard of {whom}: {counts}")
            place = {id: at for at, id in enumerate(log)}
            for by in ("", *(id for other in seen.values() for id in other["log"])):
                came = [place[id] for who, id, to in self.told if who == by and to == name and id in place]
                if came != sorted(came):
                    odd.append(f"{name} heard what {by or 'the first'} told in another order")
        return odd


async def until_as_it_must(engine: Engine, plan: Plan) -> list[str]:
    """Set it going, or on; what isn't as it must be when nothing more happens."""
    for number, name in enumerate(plan.nodes):
        node = Narrow(name) if number % 3 == 1 else Node(name)
        await engine.start(node, id=name, mode="batch" if number % 2 else "live")
    await engine.start(first(plan.program), id="first")
    ending = await engine.wait("first")
    assert ending.status == "done", ending
    before: Any = None
    calm = 0
    while True:
        seen = {name: await (await engine.get(name)).request(Look()) for name in plan.nodes}
        odd = plan.odd(seen, len(await engine.dead_letters()))
        calm = calm + 1 if seen == before else 0
        if not odd or calm > 40:
            return odd
        before = seen
        await asyncio.sleep(0.005)


def model() -> FakeModel:
    return FakeModel().when("say ").reply(lambda call: "said " + call.text.split()[1])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Handlers that fail are no news here."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


async def lives(seed: int, **how: Any) -> int:
    """One program, killed until it is through; in how many lives."""
    plan, fake, r = Plan(seed), model(), random.Random(seed + 5)
    store: Store = MemoryStore()
    if seed % 2:
        store = Delayed(store, lambda: r.choice([0.0, 0.001, 0.002, 0.006]))  # type: ignore[assignment]
    for life in range(150):
        die_at = r.choice([1, 2, 3, 5, 8, 13, 30]) if life < 120 else None
        mortal = Mortal(store, die_at, after=r.random() < 0.5, every=seed % 3 == 0)
        killed = asyncio.get_running_loop().create_future()
        mortal.died = lambda killed=killed: killed.done() or killed.set_result(None)
        async with FakeEngine(fake, mortal, linger=0.02, **how) as engine:  # type: ignore[arg-type]
            going = asyncio.ensure_future(until_as_it_must(engine, plan))
            await asyncio.wait({going, killed}, return_when=asyncio.FIRST_COMPLETED)
            if not mortal.dead:
                assert going.result() == [], seed
                return life + 1
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        fake.clock.advance(1000)
    raise AssertionError(f"{seed} never ends")


@pytest.mark.parametrize("block", range(5))
async def test_each_message_is_handled_once_whenever_its_process_dies(block: int) -> None:
    assert sum([await lives(seed) for seed in range(block * 8, block * 8 + 8)]) > 16


async def test_so_it_is_where_they_leave_memory_at_each_commit() -> None:
    for seed in range(1000, 1008):
        assert await lives(seed, park="always")
