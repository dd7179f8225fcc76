"""Random flows over every construct of asyncio and of segue that a run's tasks can meet in, for the replay tests."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any, Protocol

import segue

Op = tuple[Any, ...]


class Do(Protocol):
    """What programs do to the world."""

    async def step(self, name: str, *args: int) -> int: ...
    async def ask(self, v: int) -> int: ...
    async def tell(self, v: int) -> None: ...
    async def child(self, v: int) -> int: ...


def make(r: random.Random, depth: int = 0, *, strikes: bool = False) -> list[Op]:
    """A program: a list of operations, some of which hold programs. `strikes`: with asyncio's own timeouts."""

    def inner() -> list[Op]:
        return make(r, depth + 1, strikes=strikes)

    ops: list[Op] = []
    for _ in range(r.randint(1, 4)):
        if strikes and r.random() < 0.15:
            ops.append(("struck", inner(), r.choice([0.001, 0.003, 0.01])))
            continue
        c = r.random()
        if depth >= 3 or c < 0.36:
            ops.append(("step", r.choice("abc"), r.randint(0, 1)))
        elif c < 0.40:
            ops.append(("ask",))
        elif c < 0.43:
            ops.append(("nap", r.choice([0.0, 0.001])))
        elif c < 0.45:
            ops.append(("mail", r.randint(1, 3)))
        elif c < 0.46:
            ops.append(("child",))
        elif c < 0.48:
            ops.append(
                (
                    "map",
                    [inner() for _ in range(r.randint(2, 5))],
                    r.randint(1, 3),
                    r.random() < 0.5,
                )
            )
        elif c < 0.50:
            ops.append(("timeout", inner()))
        elif c < 0.52:
            ops.append(("finally", inner()))
        elif c < 0.6:
            ops.append(("gather", [inner() for _ in range(r.randint(2, 4))]))
        elif c < 0.7:
            ops.append(("group", [inner() for _ in range(r.randint(2, 3))]))
        elif c < 0.78:
            ops.append(("completed", [inner() for _ in range(r.randint(2, 4))]))
        elif c < 0.84:
            ops.append(("race", [inner() for _ in range(r.randint(2, 3))]))
        elif c < 0.90:
            ops.append(("semaphore", [inner() for _ in range(r.randint(3, 5))]))
        elif c < 0.93:
            ops.append(("wait_for", inner()))
        elif c < 0.97:
            ops.append(("queue", r.randint(2, 4)))
        else:
            ops.append(("branch", inner(), inner()))
    return ops


async def run(do: Do, ops: list[Op], shared: list[int] | None) -> int:
    """Interpret a program; `shared` is a list that all branches append to and put into arguments."""
    step = do.step

    async def again(ops: list[Op]) -> int:
        return await run(do, ops, shared)

    v = 0
    for op in ops:
        match op:
            case ("step", name, uses):
                more = (len(shared),) if shared is not None else ()
                v = await step(name, uses, v if uses else 0, *more)
                if shared is not None:
                    shared.append(v)
            case ("ask",):
                v = (v + await do.ask(v)) % 7
            case ("nap", seconds):
                await segue.sleep(timedelta(seconds=seconds))
            case ("mail", count):
                for i in range(count):
                    await do.tell((v + i) % 7)
                for _ in range(count):
                    v = (v + await segue.receive(int)) % 7
            case ("child",):
                v = await do.child(v)
            case ("map", parts, limit, ordered):
                v = sum(await segue.map(again, parts, limit=limit, ordered=ordered)) % 7
            case ("timeout", part):
                try:
                    async with segue.timeout(timedelta(minutes=30)):
                        v = await again(part)
                except TimeoutError:
                    v = await step("late", 0)
            case ("struck", part, seconds):
                try:
                    async with asyncio.timeout(seconds):
                        v = await again(part)
                except TimeoutError:
                    v = await step("struck", 0)
            case ("finally", part):
                try:
                    v = await again(part)
                finally:
                    await step("fin", 0)
            case ("gather", parts):
                v = sum(await asyncio.gather(*[again(part) for part in parts])) % 7
            case ("group", parts):
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(again(part)) for part in parts]
                v = sum(task.result() for task in tasks) % 7
            case ("completed", parts):
                for i, future in enumerate(asyncio.as_completed([again(part) for part in parts])):
                    v = (v * 3 + await step("oc", i, await future)) % 7
            case ("race", parts):
                tasks = [asyncio.create_task(again(part)) for part in parts]
                done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
                v = await step("won", next(task for task in tasks if task in done).result())
            case ("semaphore", parts):
                semaphore = asyncio.Semaphore(2)

                async def one(part: list[Op], semaphore: asyncio.Semaphore = semaphore) -> int:
                    async with semaphore:
                        return int(await again(part))

                v = sum(await asyncio.gather(*[one(part) for part in parts])) % 7
            case ("wait_for", part):
                v = await asyncio.wait_for(again(part), 60)
            case ("queue", count):
                queue: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

                async def produce(i: int, queue: asyncio.Queue[tuple[int, int]] = queue) -> None:
                    await queue.put((i, await step("p", i)))

                tasks = [asyncio.create_task(produce(i)) for i in range(count)]
                for _ in tasks:
                    v = (v + await step("cons", *await queue.get())) % 7
                await asyncio.gather(*tasks)
            case ("branch", odd, even):
                v = await again(odd if v % 2 else even)
            case _:
                raise AssertionError(op)
    return v
