from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from segue.testing.simulator import Entry, Ledger, Simulator, VirtualClock
from tests.testing.simulator.world import World, ids, read, row, says, submit


async def test_each_request_is_entered(world: World):
    simulator, client = await world.pair()
    await client.chat.completions.create(**says("hello"))
    batch = await submit(client, row("a"), row("b"))
    await simulator.finish()
    live, *lines = simulator.ledger.lines()
    assert (live.kind, live.model, live.status, live.batch, live.custom_id) == ("live", "m", 200, None, None)
    assert {(line.kind, line.batch, line.paid) for line in lines} == {("batch", batch.id, True)}
    assert {line.custom_id for line in lines} == {"a", "b"}
    assert all(line.time > live.time for line in lines)
    counts = simulator.ledger.counts()
    assert counts.items() >= {"asked": 3, "paid": 3, "live_paid": 1, "batch_paid": 2, "batches": 1}.items()
    assert counts["tokens_out"] == live.tokens_out + sum(line.tokens_out for line in lines)
    assert simulator.ledger.lines("batch", custom_id="a") == [line for line in lines if line.custom_id == "a"]


async def test_the_hash_is_of_the_canonical_body(world: World):
    simulator, client = await world.pair()
    body = says("hellö")
    await client.chat.completions.create(**body)
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert simulator.ledger.lines()[0].sha256 == hashlib.sha256(canonical.encode()).hexdigest()


async def test_what_is_paid_twice_is_found(world: World):
    simulator, client = await world.pair()
    await submit(client, row("a"), row("b"))
    await simulator.finish()
    assert simulator.ledger.paid_twice() == {}
    await submit(client, row("a"), row("c"))
    await simulator.finish()
    twice = simulator.ledger.paid_twice()
    assert list(twice) == ["a"]
    assert len({entry.batch for entry in twice["a"]}) == 2
    await client.chat.completions.create(**says("b"))
    assert list(simulator.ledger.paid_twice()) == ["a"]
    assert len(simulator.ledger.paid_twice("sha256")) == 2
    assert simulator.ledger.counts()["paid_twice"] == 1


async def test_the_ledger_is_served(world: World):
    simulator, client = await world.pair(key="k")
    client = world.client(simulator, key="k")
    await client.chat.completions.create(**says("x"))
    root = simulator.base_url.removesuffix("/v1")
    entries: Any = await client.get(f"{root}/_ledger", cast_to=list[Any])
    assert [(entry["model"], entry["paid"]) for entry in entries] == [("m", True)]
    counts: Any = await client.get(f"{root}/_ledger?summary=1", cast_to=dict[str, Any])
    assert counts == simulator.ledger.counts()


async def test_another_process_can_follow_the_file(world: World, tmp_path: Path):
    path = tmp_path / "here" / "ledger.jsonl"
    simulator, client = await world.pair(ledger=path)
    for number in range(3):
        await client.chat.completions.create(**says("x"))
        assert len(path.read_bytes().splitlines()) == number + 1
    assert [entry.status for entry in Ledger.read(path).lines()] == [200] * 3
    assert simulator.ledger.lines() == Ledger.read(path).lines()


def test_a_torn_last_line_is_forgotten(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    entry = Entry(time=1.0, kind="live", endpoint="/v1/embeddings", status=200, sha256="0")
    ledger = Ledger(path)
    ledger.add(entry)
    ledger.close()
    path.write_bytes(path.read_bytes() + b'{"time":1.')
    again = Ledger(path)
    again.add(entry)
    again.close()
    assert Ledger.read(path).lines() == [entry, entry]


class Restarted:
    """One provider over several lives of its process."""

    def __init__(self, world: World, directory: Path) -> None:
        self._world = world
        self._directory = directory
        self.clock = VirtualClock()

    async def live(self, **options: Any) -> tuple[Simulator, Any]:
        return await self._world.pair(directory=self._directory, clock=self.clock, **options)


async def test_all_is_there_after_a_restart(world: World, tmp_path: Path):
    lives = Restarted(world, tmp_path)
    simulator, client = await lives.live()
    done = await submit(client, row("x"), metadata={"nonce": "n1"})
    await simulator.finish()
    working = await submit(client, *(row(f"r{number}") for number in range(20)))
    await simulator.advance(timedelta(minutes=30))
    waiting = await submit(client, row("w"))
    before = [(await client.batches.retrieve(each.id)) for each in (done, working, waiting)]
    await world.close(simulator)

    simulator, client = await lives.live()
    assert [(await client.batches.retrieve(each.id)) for each in (done, working, waiting)] == before
    assert ids(await read(client, before[0].output_file_id)) == ["x"]
    assert simulator.ledger.counts()["batch_paid"] == 11
    await simulator.finish()
    ended = await client.batches.retrieve(working.id)
    assert ended.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
    assert len(await read(client, ended.output_file_id)) == 20
    assert ended.completed_at == ended.created_at + 3600
    assert simulator.ledger.counts()["batch_paid"] == 22
    assert simulator.ledger.paid_twice() == {}
    more = await submit(client, row("y"))
    assert more.id not in {done.id, working.id, waiting.id}


async def test_a_line_whose_entry_was_lost_in_a_crash_is_entered_at_the_next_start(
    world: World, tmp_path: Path
):
    lives = Restarted(world, tmp_path)
    simulator, client = await lives.live()
    await submit(client, *(row(f"r{number}") for number in range(20)))
    await simulator.advance(timedelta(minutes=30))
    whole = simulator.ledger.lines()
    await world.close(simulator)
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    [outcomes] = (tmp_path / "batches").glob("*.jsonl")
    outcomes.write_bytes(outcomes.read_bytes() + b'{"ind')

    simulator, client = await lives.live()
    again = simulator.ledger.lines()
    assert [entry.custom_id for entry in again] == [entry.custom_id for entry in whole]
    await simulator.advance(timedelta(minutes=5))
    await world.close(simulator)
    simulator, client = await lives.live()
    await simulator.finish()
    assert simulator.ledger.counts()["batch_paid"] == 20
    assert simulator.ledger.paid_twice() == {}


async def test_a_cancel_goes_on_after_a_restart(world: World, tmp_path: Path):
    lives = Restarted(world, tmp_path)
    simulator, client = await lives.live()
    batch = await submit(client, *(row(f"r{number}") for number in range(20)))
    await simulator.advance(timedelta(minutes=30))
    await client.batches.cancel(batch.id)
    await world.close(simulator)
    simulator, client = await lives.live()
    await simulator.finish()
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "cancelled"
    assert len(await read(client, batch.output_file_id)) == 10
    assert len(await read(client, batch.error_file_id)) == 10
