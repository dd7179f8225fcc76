"""Random flows over every construct and every kind of call, through `check`'s ways of running them."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

import segue
from segue.authoring.context import find_branch
from segue.testing import FakeModel, ModelCall
from segue.testing.crosscheck import _Check, _Way
from tests.runtime import programs

#: Constructs whose outcome depends on who is first, which is another one in each mode.
RACES = {"race", "completed", "queue", "mail"}


@segue.step
async def work(name: str, args: list[int]) -> int:
    return (sum(args) * 3 + len(name) + ord(name[0])) % 7


@segue.step
def threaded(name: str, args: list[int]) -> int:
    return (sum(args) * 5 + 1) % 7


@segue.step(retry=segue.Retry(3, wait=timedelta(minutes=1)))
async def flaky(name: str) -> int:
    if sum(map(ord, segue.idempotency_key())) % 3 == 0:
        raise ValueError(name)
    return 3


@segue.flow
async def random_leaf(name: str) -> int:
    return len(await segue.generate(f"leaf {await work(name, [1])}"))


async def item(i: int) -> int:
    return await work("item", [i]) if i % 2 else len(await segue.generate(f"item {i}"))


class Doing:
    """Every kind of call, by what a program asks for."""

    async def step(self, name: str, *args: int) -> int:
        match (ord(name[0]) + len(args) + sum(args) + len(name)) % 9:
            case 0:
                try:
                    return await flaky(name)
                except ValueError:
                    return 2
            case 1:
                return await segue.generate(f"{name} {args}", returns=int)
            case 2:
                return sum(await segue.map(item, range(4), limit=2)) % 7
            case 3:
                async with segue.timeout(timedelta(days=30)):
                    await segue.sleep(timedelta(seconds=1 + sum(args)))
                    return await threaded(name, list(args))
            case 4:
                try:
                    async with segue.timeout(timedelta(days=5)):
                        await segue.ask("never?")
                except TimeoutError:
                    pass
                return 5
            case 5:
                return sum(await segue.map(random_leaf, ["a", "b"])) % 7
            case 6:
                child = await segue.spawn(random_leaf(name))
                return await child % 7
            case 7:
                return await segue.ask("what?", returns=int, timeout=timedelta(days=300), default=1)
            case _:
                return len(await segue.generate(f"text {name} {args}")) % 7

    async def ask(self, v: int) -> int:
        return await segue.ask(f"say {v}", returns=int)

    async def tell(self, v: int) -> None:
        branch = find_branch()
        assert branch is not None
        await segue.tell(branch.run.id, v)

    async def child(self, v: int) -> int:
        return await (await segue.spawn(random_leaf(f"child {v}"))) % 7


@segue.flow
async def random_program(seed: int) -> int:
    return await programs.run(Doing(), programs.make(random.Random(seed)), None)


def think(call: ModelCall) -> object:
    number = sum(map(ord, call.text)) % 7
    return number if call.answer else "x" * number


def size(ops: list[Any]) -> int:
    return str(ops).count("('")


def races(ops: list[Any]) -> bool:
    return any(f"('{race}'" in str(ops) for race in RACES)


SMALL = [seed for seed in range(1000) if 4 <= size(programs.make(random.Random(seed))) <= 25][:24]


@pytest.mark.parametrize("block", range(4))
async def test_random_flows(block: int) -> None:
    for seed in SMALL[block::4]:
        model = FakeModel()
        model.when("").reply(think)
        model.answer("say", 3).answer("what", 2)
        checked = _Check(random_program, [(seed,)], model, None)
        same = not races(programs.make(random.Random(seed)))
        live = await checked.run(_Way("live", "live", verify=True))
        batch = await checked.run(_Way("batch", "batch", verify=True))
        chance = random.Random(seed)
        ways = [_Way(f"{mode}, evicted", mode, verify=True, always=True) for mode in ("live", "batch")]
        for mode, done in (("live", live), ("batch", batch)):
            for after in (False, True):
                for at in chance.sample(range(1, done.writes + 1), min(3, done.writes)):
                    ways.append(_Way(f"{mode}, killed at {at}", mode, verify=True, die_at=at, after=after))
        for done in [batch, *[await checked.run(way) for way in ways]]:
            if same:
                checked.same(live, done)
            ends = {head.status: head.error for head in done.heads.values()}
            assert ends.keys() <= {"done", "cancelled", "parked"}, (seed, done.way, ends)
