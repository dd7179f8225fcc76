"""Programs that work on one SQLite file beside others; `test_sqlite` runs them."""

import asyncio
import sys

from segue.model.message import Mail
from segue.model.run import Spec
from segue.ports.store import NewRun, Turn
from segue.stores.sqlite import SqliteStore


async def work(store, count, worker):
    """Create what the others create too, and work off what can be had."""
    ids = [f"r{i:03}" for i in range(count)]
    await store.create([NewRun("sink", Spec("flow", "sink", b"[]"))], now=0.0, worker="nobody", ttl=1e9)
    for start in range(0, count, 10):
        new = [NewRun(id, Spec("flow", "greet", b"[]", job="j")) for id in ids[start : start + 10]]
        await store.create(new, now=0.0)
    while claimed := await store.claim(worker, 4, 1e9, now=1.0):
        for run in claimed:
            print(run.head.id)
        await asyncio.gather(*[do(store, run.head.id, run.head.fence, worker.encode()) for run in claimed])


async def do(store, id, fence, row):
    for _ in range(2):
        assert await store.commit([Turn(run=id, fence=fence, entries=row)]) == ["committed"]
    mail = [Mail("sink", f"run:{id}", 1, "tell")]
    assert await store.commit([Turn(run=id, fence=fence, entries=row, outbox=mail, status="done")]) == [
        "committed"
    ]


async def write(store, group):
    """Write numbers for ever, and say how far it is acknowledged."""
    runs = [NewRun(f"r{i}", Spec("flow", "greet", b"[]")) for i in range(group)]
    await store.create(runs, now=0.0, worker="w", ttl=1e9)
    number = 0
    while True:
        turns = [Turn(run=f"r{i}", fence=1, entries=b"%d" % (number + i)) for i in range(group)]
        await asyncio.gather(*[store.commit([turn]) for turn in turns])
        number += group
        print(number, flush=True)


async def main(path, what, count, worker=""):
    store = SqliteStore(path)
    await store.open()
    await (work(store, int(count), worker) if what == "work" else write(store, int(count)))
    await store.close()


asyncio.run(main(*sys.argv[1:]))
