"""A tree of actors that exchange messages, and processes that work on it and are killed at random.

`tree.py STORE WORKERS KILLS SECONDS SEED MESSAGES`: kills one after the other, each up to so many seconds after the one
before, and leaves when the tree is done.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from hashlib import blake2b

import segue
from segue.stores import sqlite  # noqa: F401 - loaded now, not in every life

NODES = 50
BRANCHES = 3
#: So many messages a turn, before those that came meanwhile are handled.
BURST = 10


def recipient(sender: int, number: int) -> int:
    """To whom a node sends its message of that number."""
    return int.from_bytes(blake2b(f"{sender}.{number}".encode(), digest_size=4).digest()) % NODES


def expected(node: int, each: int) -> int:
    """How many messages a node gets."""
    return sum(recipient(sender, number) == node for sender in range(NODES) for number in range(each))


def address(node: int) -> str:
    """A node's run."""
    return f"node/{node}"


class Ball(segue.Note):
    sender: int
    number: int


class Up(segue.Note):
    """A child, and all below it, is there."""


class Go(segue.Note):
    """All are there."""


class More(segue.Note):
    """To itself: send on."""


class Node(segue.Actor[list[tuple[int, int]]]):
    number: int
    each: int
    due: int
    up: int = 0
    sent: int = 0
    handled: list[tuple[int, int]] = segue.field(default_factory=list)

    @property
    def children(self) -> list[int]:
        first = self.number * BRANCHES + 1
        return list(range(first, min(first + BRANCHES, NODES)))

    async def setup(self) -> None:
        for child in self.children:
            await segue.spawn(Node(child, self.each, expected(child, self.each)), id=address(child))
        await self.arrived()

    async def arrived(self) -> None:
        """Once all below are there, those above are told."""
        if self.up == len(self.children):
            if self.number:
                await segue.tell(address((self.number - 1) // BRANCHES), Up())
            else:
                await segue.tell(address(0), Go())

    @segue.on
    async def child_is_up(self, _: Up) -> None:
        self.up += 1
        await self.arrived()

    @segue.on
    async def go(self, note: Go) -> None:
        for child in self.children:
            await segue.tell(address(child), note)
        await segue.tell(address(self.number), More())

    @segue.on
    async def more(self, note: More) -> object:
        for _ in range(min(BURST, self.each - self.sent)):
            await segue.tell(address(recipient(self.number, self.sent)), Ball(self.number, self.sent))
            self.sent += 1
        if self.sent < self.each:
            await segue.tell(address(self.number), note)
        return self.next()

    @segue.on
    async def got(self, ball: Ball) -> object:
        self.handled.append((ball.sender, ball.number))
        return self.next()

    def next(self) -> object:
        """It is done when it has sent and got all. What it would get besides would be a dead letter."""
        if self.sent == self.each and len(self.handled) >= self.due:
            return segue.Done(self.handled)
        return segue.Listen()


async def work(store: str, each: int) -> None:
    """One process, until the tree is done."""
    async with segue.Engine(store, linger=0.2) as engine:
        await engine.start(Node(0, each, expected(0, each)), id=address(0))
        while len((await engine.store.newest(status=("done", "failed")))[0]) < NODES:
            for held in (await engine.store.newest(status=("held",)))[0]:
                raise RuntimeError(f"run {held.id} is held: {held.reason}")
            await asyncio.sleep(0.2)


def fork(store: str, each: int) -> int:
    """Begin a process; its id."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            asyncio.run(work(store, each))
            code = 0
        finally:
            os._exit(code)
    return child


def reap(children: list[int], *, wait: bool) -> list[int]:
    """Those that have ended by themselves leave the list; how they ended."""
    codes = []
    for child in list(children):
        ended, status = os.waitpid(child, 0 if wait else os.WNOHANG)
        if ended:
            children.remove(child)
            codes.append(os.waitstatus_to_exitcode(status))
    return codes


def main(store: str, workers: int, kills: int, seconds: float, seed: int, messages: int) -> None:
    """The mother of the processes; prints how many were killed, and how the others ended."""
    chance, each = random.Random(seed), messages // NODES
    children = [fork(store, each) for _ in range(workers)]
    killed, codes = 0, []
    while killed < kills and not codes:
        time.sleep(chance.uniform(0.0, seconds))
        codes += reap(children, wait=False)
        if not codes:
            victim = children.pop(chance.randrange(len(children)))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            killed += 1
            children.append(fork(store, each))
    codes += reap(children, wait=True)
    print(killed, *codes)


if __name__ == "__main__":
    store, workers, kills, seconds, seed, messages = sys.argv[1:]
    main(store, int(workers), int(kills), float(seconds), int(seed), int(messages))
