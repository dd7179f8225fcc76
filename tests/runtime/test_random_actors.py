"""Actors whose handlers do what is told, at random: killed, parked and cancelled, on stores that take their time.

No life is held for a difference, and each message is handled once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import segue
from segue import Actor, Note, Request
from segue.model.errors import Deadlock, RunEnded
from segue.model.message import Mail
from segue.stores.memory import MemoryStore
from tests.runtime.delayed import Delayed
from tests.runtime.lives import Desk

CHANCE = random.Random(0)
LEFT: list[asyncio.Task[None]] = []
Op = list[Any]


@segue.step
async def quick() -> None:
    for _ in range(CHANCE.choice([0, 1, 3])):
        await asyncio.sleep(0)


@segue.step
async def stubborn() -> None:
    """Ends in its own time."""
    try:
        await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        await asyncio.sleep(0.002)


class Do(Note):
    id: str
    ops: list[Op]


class Ask(Request[str]):
    id: str
    ops: list[Op]


class Now(segue.Envelope):
    urgent = True
    id: str
    ops: list[Op]

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        return await actor.does(self)


class Log(Request[list[str]]): ...


class Doer(Actor[None]):
    peers: list[str]
    ends: list[Op]
    log: list[str] = segue.field(default_factory=list)

    @segue.on
    async def do(self, m: Do) -> None:
        await self.does(m)

    @segue.on
    async def ask(self, m: Ask) -> str:
        await self.does(m)
        return m.id

    @segue.on
    async def tells(self, _: Log) -> list[str]:
        return self.log

    async def teardown(self) -> None:
        await self.all("end", self.ends)

    async def does(self, m: Do | Ask | Now) -> None:
        await self.all(m.id, m.ops)
        self.log.append(f"handled {m.id}")

    async def all(self, id: str, ops: list[Op]) -> None:
        for n, op in enumerate(ops):
            await self.one(f"{id}.{n}", op)

    async def one(self, id: str, op: Op) -> None:
        match op:
            case ["step"]:
                await quick()
            case ["ask"]:
                await segue.ask("?")
            case ["sleep", seconds]:
                await segue.sleep(timedelta(seconds=seconds))
            case ["do" | "now" as kind, to, after, ops]:
                message = Do(id, ops) if kind == "do" else Now(id, ops)
                await segue.tell(self.peers[to], message, after=timedelta(seconds=after) if after else None)
                self.log.append(f"told {id}")
            case ["request", to, ops]:
                try:
                    peer: segue.Run[Any] = segue.Run(None, self.peers[to])
                    assert await peer.request(Ask(id, ops), timeout=timedelta(seconds=5)) == id
                except (Deadlock, TimeoutError, RunEnded):
                    pass
            case ["gather", ops]:
                await asyncio.gather(*(self.one(f"{id}.{n}", op) for n, op in enumerate(ops)))
            case ["race", ops]:
                tasks = [asyncio.ensure_future(self.one(f"{id}.{n}", op)) for n, op in enumerate(ops)]
                _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in left:
                    task.cancel()
            case ["give up"]:
                task = asyncio.ensure_future(stubborn())
                await quick()
                task.cancel()
            case ["leave"]:
                LEFT.append(asyncio.create_task(self.left()))
                await quick()
            case ["timeout" | "strike" as kind, ops]:
                bound = segue.timeout(timedelta(seconds=1)) if kind == "timeout" else asyncio.timeout(0.003)
                try:
                    async with bound:
                        await self.all(id, ops)
                except TimeoutError:
                    pass

    async def left(self) -> None:
        try:
            await segue.sleep(timedelta(days=1))
        finally:
            await quick()


def make(r: random.Random, peers: int, depth: int = 2) -> list[Op]:
    """What a handler is to do."""

    def one() -> Op:
        kinds = ["step", "step", "ask", "sleep", "give up", "leave"]
        if depth:
            kinds += ["do", "do", "now", "now", "request", "gather", "race", "timeout", "strike"]
        match r.choice(kinds):
            case "sleep":
                return ["sleep", r.choice([0, 0.01, 1])]
            case "do" | "now" as kind:
                return [kind, r.randrange(peers), r.choice([0, 0, 0.01, 2]), make(r, peers, depth - 1)]
            case "request":
                return ["request", r.randrange(peers), make(r, peers, depth - 1)]
            case "timeout" | "strike" as kind:
                return [kind, make(r, peers, depth - 1)]
            case "gather" | "race" as kind:
                return [kind, [*make(r, peers, depth - 1), one()]]
            case kind:
                return [kind]

    return [one() for _ in range(r.choice([0, 1, 1, 2, 3]))]


class World:
    """Some actors, and what they are told."""

    def __init__(self, seed: int, *, cancels: bool) -> None:
        CHANCE.seed(seed)
        LEFT.clear()
        self.r, self.cancels = random.Random(seed), cancels
        self.peers = ["a", "b"][: self.r.choice([1, 2])]
        store = MemoryStore()
        park = self.r.choice(["idle", "idle", "always"])
        self.desk = Desk(Delayed(store, self.delay) if seed % 2 else store, park=park, verify=False)
        self.desk.fake.answer("?", "yes")
        self.sent: list[str] = []

    def delay(self) -> float:
        return CHANCE.choice([0, 0, 0.001, 0.003])

    def send(self) -> None:
        """Some mail, from outside."""
        now = self.desk.fake.clock.now()
        mail = []
        for _ in range(self.r.choice([1, 1, 2, 4])):
            id, to = f"m{len(self.sent)}", self.r.choice(self.peers)
            self.sent.append(id)
            if self.cancels and self.r.random() < 0.25:
                mail.append(Mail(to, "outside", len(self.sent), "cancel", at=now))
                continue
            value = msgspec.json.encode({"id": id, "ops": make(self.r, len(self.peers))})
            what = ("tell", "Do") if self.r.random() < 0.7 else ("urgent", "Now")
            mail.append(Mail(to, "outside", len(self.sent), *what, value, at=now))
        self.desk.store.deliver(mail, now=now)

    async def life(self, die_at: int | None) -> None:
        async with self.desk.engine(die_at, after=self.r.random() < 0.5):
            assert self.desk.killed is not None
            for _ in range(self.r.choice([1, 3, 6])):
                self.send()
                for _ in range(self.r.choice([0, 1, 5, 20])):
                    await asyncio.sleep(0)
                await asyncio.sleep(self.r.choice([0, 0, 0.001, 0.02]))
                if self.desk.killed.done():
                    return

    async def ended(self) -> list[str]:
        """A life in which nobody dies: what the actors have in their logs when nothing is left to do."""
        async with self.desk.engine() as engine:
            while not all([await self.is_quiet(peer) for peer in self.peers]):
                await asyncio.sleep(0.002)
            if self.cancels:
                return []
            return [line for peer in self.peers for line in await (await engine.get(peer)).request(Log())]

    async def is_quiet(self, peer: str) -> bool:
        head = await self.desk.head(peer)
        assert head.status in ("ready", "parked", "cancelled"), (head.reason, head.error)
        lies = any(not letter.kept for letter in await self.desk.store.inbox(peer, 0))
        return head.status == "cancelled" or (head.status == "parked" and not lies)


@pytest.mark.parametrize("cancels", [False, True], ids=["", "cancelled"])
@pytest.mark.parametrize("block", range(4))
async def test_random_actors(block: int, cancels: bool) -> None:
    for seed in range(block * 12, block * 12 + 12):
        world = World(seed, cancels=cancels)
        async with world.desk.engine(worker=False) as engine:
            for peer in world.peers:
                await engine.start(Doer(world.peers, [["step"], ["ask"]]), id=peer)
        for _ in range(world.r.choice([1, 2, 4])):
            await world.life(world.r.choice([None, world.r.randrange(1, 40)]))
        log = await world.ended()
        handled = Counter(line.split()[1] for line in log if line.startswith("handled"))
        told = {line.split()[1] for line in log if line.startswith("told")}
        assert set(handled.values()) <= {1}, (seed, handled)
        assert cancels or {*told, *world.sent} <= {*handled}, (seed, {*told, *world.sent} - {*handled})
