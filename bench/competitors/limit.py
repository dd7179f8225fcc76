"""The limits: the least that any engine must do for the same work, without an engine."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import common
from common import KB, LINE, QUESTION, Figures, watch

OUT = json.dumps(KB).encode()
DIGEST = b"0123456789abcdef"


async def noop(x: Any) -> Any:
    return KB


# ------------------------------------------------------------------------------------------------ SQLite
def database(path: str, schema: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.executescript(schema)
    return db


APPEND = "create table entries(run int, n int, path blob, name text, digest blob, args blob, out blob);"
INDEXED = APPEND + "create index entries_run on entries(run);"
CLUSTERED = APPEND.replace("out blob)", "out blob, primary key(run, n)) without rowid")
ENTRY = "insert into entries values(?, ?, ?, ?, ?, ?, ?)"


def entry(run: int, n: int, out: bytes, args: bytes | None = None) -> tuple[Any, ...]:
    return (run, n, b"", "module.noop", DIGEST, args, out)


Apply = Callable[[sqlite3.Connection, list[Any]], object]


def insert(db: sqlite3.Connection, rows: list[Any]) -> None:
    db.executemany(ENTRY, rows)


class Writer:
    """A thread that commits whatever has gathered while it made the last commit; woken once a loop turn."""

    def __init__(self, db: sqlite3.Connection, apply: Apply = insert) -> None:
        self.db, self.apply = db, apply
        self.loop = asyncio.get_running_loop()
        self.waiting: list[tuple[Any, asyncio.Future[None]]] = []
        self.called, self.over = False, False
        self.bell = threading.Semaphore(0)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def put(self, item: Any) -> asyncio.Future[None]:
        done = self.loop.create_future()
        self.waiting.append((item, done))
        if not self.called:
            self.called = True
            self.loop.call_soon(self.call)
        return done

    def call(self) -> None:
        self.called = False
        self.bell.release()

    def run(self) -> None:
        while True:
            self.bell.acquire()
            while self.bell.acquire(blocking=False):
                pass
            if self.over:
                return
            batch, self.waiting = self.waiting, []
            if not batch:
                continue
            self.db.execute("begin immediate")
            self.apply(self.db, [item for item, _ in batch])
            self.db.execute("commit")
            self.loop.call_soon_threadsafe(self.answer, batch)

    def answer(self, batch: list[tuple[Any, asyncio.Future[None]]]) -> None:
        for _, done in batch:
            if not done.done():
                done.set_result(None)

    def close(self) -> None:
        self.over = True
        self.bell.release()
        self.thread.join()
        self.db.close()


# ------------------------------------------------------------------------------------------------ chain
async def chain_memory(order: dict[str, Any]) -> Figures:
    runs, create = order["n"], asyncio.create_task

    async def plain() -> None:
        x: Any = KB
        for _ in range(5):
            x = await create(noop(x))

    async def encoded() -> None:
        x: Any = KB
        for _ in range(5):
            x = await create(noop(x))
            json.dumps(x)

    async def copied() -> None:
        x: Any = KB
        for _ in range(5):
            x = json.loads(json.dumps(await create(noop(x))))

    async def written() -> None:
        x: Any = KB
        for _ in range(5):
            json.dumps(x)
            x = json.loads(json.dumps(await create(noop(x))))

    figures = {}
    sides = ("memory.task", plain), ("memory.dumps", encoded), ("memory", copied), ("memory.args", written)
    for key, chain in sides:
        for _ in range(50):
            await chain()
        with watch() as w:
            for _ in range(runs):
                await chain()
        figures[key] = w.per(runs * 5, 1e6)
    return figures


async def chain_one(order: dict[str, Any]) -> Figures:
    runs, figures = order["n"], {}
    writer = Writer(database(f"{order['dir']}/one.db", APPEND))
    for n in range(20):
        await writer.put(entry(-1, n, OUT))
    with watch() as w:
        for run in range(runs):
            for n in range(5):
                await writer.put(entry(run, n, OUT))
    figures["one"] = w.per(runs * 5, 1e6)
    writer.close()
    db = database(f"{order['dir']}/inline.db", APPEND)
    with watch() as w:
        for run in range(runs):
            for n in range(5):
                db.execute("begin immediate")
                db.execute(ENTRY, entry(run, n, OUT))
                db.execute("commit")
    figures["one.inline"] = w.per(runs * 5, 1e6)
    db.close()
    return figures


async def chain_hundred(order: dict[str, Any]) -> Figures:
    runs, figures = order["n"], {}
    for key, schema, args in (
        ("hundred", APPEND, None),
        ("hundred.indexed", INDEXED, None),
        ("hundred.whole", INDEXED, OUT),
        ("hundred.clustered", CLUSTERED, None),
    ):
        writer = Writer(database(f"{order['dir']}/{key}.db", schema))

        async def one(run: int, writer: Writer = writer, args: bytes | None = args) -> None:
            for n in range(5):
                await writer.put(entry(run, n, OUT, args))

        with watch() as w:
            await common.workers(100, range(runs), one)
        figures[key] = w.per(runs * 5, 1e6)
        writer.close()
    figures["hundred.made"] = await encoded_there(order)
    return figures


async def encoded_there(order: dict[str, Any]) -> Any:
    """Rows made where the step is: its arguments written, and looked at again after it, and its result handed on as a
    decoded copy; a row more where a run begins, and where it ends."""
    import msgspec

    write, pack, read = msgspec.json.encode, msgspec.msgpack.encode, msgspec.json.decode
    writer = Writer(database(f"{order['dir']}/made.db", INDEXED))

    async def step(run: int, n: int, x: Any) -> Any:
        args = write(x)
        given = await noop(x)
        assert write(x) == args
        out = write(given)
        await writer.put(entry(run, n, pack(("noop", n, b"" if n else args, out))))
        return read(out)

    async def chain(run: int) -> None:
        x: Any = KB
        for n in range(5):
            x = await step(run, n, x)

    async def one(run: int) -> None:
        await writer.put(entry(run, -1, OUT))
        await asyncio.create_task(chain(run))
        await writer.put(entry(run, 5, b"null"))

    with watch() as w:
        await common.workers(100, range(order["n"]), one)
    writer.close()
    return w.per(order["n"] * 5, 1e6)


# ------------------------------------------------------------------------------------------------ llm mix
async def llm(order: dict[str, Any]) -> Figures:
    import aiohttp

    runs, url = order["n"], f"{order['url']}/chat/completions"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(prompt: str) -> str:
            body = {"model": "test", "messages": [{"role": "user", "content": prompt}]}
            async with session.post(url, json=body) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        async def flow(i: int) -> str:
            text = f"Case {i}."
            for what in ("Read", "Judge", "Answer"):
                text = await call(f"{what}: {text}")
            return text

        await asyncio.gather(*(call("warm") for _ in range(20)))
        with watch() as w:
            await asyncio.gather(*(flow(i) for i in range(runs)))
    return {"memory": w.rate(runs), "sqlite": w.rate(runs)}


async def calls(order: dict[str, Any]) -> Figures:
    import aiohttp

    url = f"{order['url']}/chat/completions"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(i: int) -> str:
            body = {"model": "test", "messages": [{"role": "user", "content": f"Case {i}."}]}
            async with session.post(url, json=body) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        await common.workers(100, range(300), call)
        with watch() as w:
            await common.workers(100, range(order["n"]), call)
    return dict.fromkeys(("memory", "sqlite", "long"), w.rate(order["n"]))


async def served(where: str, order: dict[str, Any]) -> Figures:
    import aiohttp

    url = f"{order['url']}/chat/completions"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(i: int) -> str:
            said = []
            body = {"model": "test", "stream": True, "messages": [{"role": "user", "content": f"Case {i}."}]}
            async with session.post(url, json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            said.append(choice["delta"].get("content") or "")
            return "".join(said)

        figures = await common.served(order["n"], call)
    return {f"{where}.{key}": figure for key, figure in figures.items()}


# ------------------------------------------------------------------------------------------------ parked
async def parked(order: dict[str, Any]) -> Figures:
    n, folder = order["n"], order["dir"]
    schema = "create table runs(id integer primary key, status int, question text, answer text, result text);"
    asked = "insert into runs values(?, 0, ?, null, null)"

    async def person(answer: asyncio.Future[str]) -> str:
        return await answer

    # Resident: a coroutine and its future, held in memory.
    loop = asyncio.get_running_loop()
    before = resident_base()
    futures = [loop.create_future() for _ in range(n)]
    tasks = [asyncio.create_task(person(f)) for f in futures]
    await asyncio.sleep(0)
    kb = (common.resident() - before) / n / 1024
    for f in futures:
        f.set_result("yes")
    await asyncio.gather(*tasks)
    del futures, tasks

    # On disk and to wake: a row a run; the answer one group commit, the result another.
    db = database(f"{folder}/parked.db", schema)
    empty = common.on_disk(folder)
    db.execute("begin")
    db.executemany(asked, ((i, QUESTION) for i in range(n)))
    db.execute("commit")
    disk = (common.on_disk(folder) - empty) / n / 1024
    set_answer = "update runs set status = 1, answer = ? where id = ?"
    set_result = "update runs set status = 2, result = ? where id = ?"

    def apply(db: sqlite3.Connection, items: list[Any]) -> None:
        for sql, value, run in items:
            db.execute(sql, (value, run))

    writer = Writer(db, apply)

    async def wake(run: int) -> None:
        await writer.put((set_answer, "yes", run))
        await writer.put((set_result, "done: yes", run))

    with watch() as w:
        await common.workers(100, range(n), wake)
    writer.close()
    return {"resident": {"value": kb}, "disk": {"value": disk}, "wake": w.per(1)}


def resident_base() -> int:
    common.resident()
    return common.resident()


# ------------------------------------------------------------------------------------------------ long
async def long_write(order: dict[str, Any]) -> Figures:
    n, out = order["n"], json.dumps(LINE).encode()
    writer = Writer(database(f"{order['dir']}/long.db", APPEND))
    with watch() as w:
        for i in range(n):
            await writer.put(entry(1, i, out))
    common.leave({"time": w.per(1), "written": {"value": w.written / 1e6}})


async def long_resume(order: dict[str, Any]) -> Figures:
    with watch() as w:
        db = database(f"{order['dir']}/long.db", "")
        rows = db.execute("select n, name, digest, out from entries where run = 1 order by rowid").fetchall()
        state = [json.loads(out) for *_, out in rows]
    assert len(state) == order["n"]
    return {"resume": w.per(1)}


# ------------------------------------------------------------------------------------------------ fan-out
async def fanout_memory(order: dict[str, Any]) -> Figures:
    async def step(i: int) -> int:
        return i * i

    n = order["n"]
    await asyncio.gather(*(asyncio.create_task(step(i)) for i in range(100)))
    with watch() as w:
        values = await asyncio.gather(*(asyncio.create_task(step(i)) for i in range(n)))
        assert sum(values) == sum(i * i for i in range(n))
    return {"memory": w.per(1)}


async def fanout_sqlite(order: dict[str, Any]) -> Figures:
    writer = Writer(database(f"{order['dir']}/fan.db", APPEND))

    async def step(i: int) -> int:
        await writer.put(entry(1, i, json.dumps(i * i).encode()))
        return i * i

    n = order["n"]
    with watch() as w:
        values = await asyncio.gather(*(asyncio.create_task(step(i)) for i in range(n)))
        assert sum(values) == sum(i * i for i in range(n))
    writer.close()
    return {"sqlite": w.per(1)}


# ------------------------------------------------------------------------------------------------ actor
async def actor_memory(order: dict[str, Any]) -> Figures:
    n, trips = order["n"], order["n"] // 5
    queue: asyncio.Queue[int] = asyncio.Queue()
    total = 0

    async def consume(count: int) -> None:
        nonlocal total
        for _ in range(count):
            total += await queue.get()

    with watch() as one_way:
        task = asyncio.create_task(consume(n))
        for _ in range(n):
            await queue.put(1)
        await task
    assert total == n

    calls: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def answer() -> None:
        for _ in range(trips):
            value, reply = await calls.get()
            reply.set_result(value + 1)

    with watch() as round_trip:
        task = asyncio.create_task(answer())
        for i in range(trips):
            reply: asyncio.Future[int] = loop.create_future()
            await calls.put((i, reply))
            assert await reply == i + 1
        await task
    return {"one-way": one_way.rate(n), "round": round_trip.rate(trips)}


async def actor_durable(order: dict[str, Any]) -> Figures:
    """A message is durable when it is sent; handling it is one more commit: state written, message gone."""
    each, actors = order["n"] // 100, 100
    schema = """create table inbox(id integer primary key, actor int, body text);
    create table state(actor int primary key, total int);"""
    db = database(f"{order['dir']}/actors.db", schema)
    db.executemany("insert into state values(?, 0)", ((i,) for i in range(actors)))
    numbers = iter(range(1, order["n"] + 1))

    def apply(db: sqlite3.Connection, items: list[Any]) -> None:
        for sql, values in items:
            for one, value in zip(sql, values, strict=True):
                db.execute(one, value)

    writer = Writer(db, apply)
    tell = ("insert into inbox values(?, ?, ?)",)
    handle = ("update state set total = ? where actor = ?", "delete from inbox where id = ?")
    boxes: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(actors)]

    async def sender(actor: int) -> None:
        for _ in range(each):
            number = next(numbers)
            await writer.put((tell, ((number, actor, '{"n": 1}'),)))
            boxes[actor].put_nowait(number)

    async def handler(actor: int) -> None:
        for total in range(1, each + 1):
            number = await boxes[actor].get()
            await writer.put((handle, ((total, actor), (number,))))

    with watch() as w:
        await asyncio.gather(*(sender(i) for i in range(actors)), *(handler(i) for i in range(actors)))
    assert db.execute("select sum(total) from state").fetchone() == (each * actors,)
    writer.close()
    return {"durable": w.rate(each * actors)}


async def actor_sqlite(order: dict[str, Any]) -> Figures:
    """One actor: what is there when it looks is handled with one commit."""
    each, senders, trips = order["n"] // 100, 100, order["n"] // 20
    schema = """create table inbox(id integer primary key, actor int, body text);
    create table state(actor int primary key, total int);"""
    db = database(f"{order['dir']}/actor.db", schema)
    db.execute("insert into state values(1, 0)")
    numbers = iter(range(1, 1 << 30))

    def apply(db: sqlite3.Connection, items: list[Any]) -> None:
        for item in items:
            for sql, values in item:
                db.execute(sql, values)

    writer = Writer(db, apply)
    tell, set_total = "insert into inbox values(?, 1, ?)", "update state set total = ? where actor = 1"
    delete = "delete from inbox where id = ?"
    box: asyncio.Queue[int] = asyncio.Queue()
    total = 0

    async def send() -> None:
        number = next(numbers)
        await writer.put([(tell, (number, '{"n": 1}'))])
        box.put_nowait(number)

    async def handle(count: int) -> None:
        nonlocal total
        while count:
            numbers = [await box.get()]
            while not box.empty():
                numbers.append(box.get_nowait())
            total += len(numbers)
            count -= len(numbers)
            await writer.put([(set_total, (total,)), *((delete, (number,)) for number in numbers)])

    async def sender() -> None:
        for _ in range(each):
            await send()

    with watch() as one_way:
        await asyncio.gather(handle(each * senders), *(sender() for _ in range(senders)))
    with watch() as round_trip:
        for _ in range(trips):
            await send()
            await handle(1)
    assert db.execute("select total from state").fetchone() == (each * senders + trips,)
    writer.close()
    return {"sqlite.one-way": one_way.rate(each * senders), "sqlite.round": round_trip.rate(trips)}


# ------------------------------------------------------------------------------------------------ idle, age
async def idle(order: dict[str, Any], size: Callable[[], int]) -> float:
    """What each task holds that waits on a queue of its own, in KB."""

    async def one(box: asyncio.Queue[int]) -> None:
        total = 0
        while True:
            total += await box.get()

    size()
    before = size()
    boxes: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(order["n"])]
    tasks = [asyncio.create_task(one(box)) for box in boxes]
    await asyncio.sleep(0)
    held = (size() - before) / order["n"] / 1024
    for task in tasks:
        task.cancel()
    return held


async def idle_in(order: dict[str, Any]) -> Figures:
    return {"in": {"value": await idle(order, common.resident)}}


async def heap_in(order: dict[str, Any]) -> Figures:
    return {"heap-in": {"value": await idle(order, common.heap)}}


async def idle_out(order: dict[str, Any]) -> Figures:
    db = database(f"{order['dir']}/idle.db", "create table state(id integer primary key, fields text);")
    empty = common.on_disk(order["dir"])
    db.execute("begin")
    db.executemany("insert into state values(?, ?)", ((i, '{"total":1}') for i in range(order["n"])))
    db.execute("commit")
    return {"disk": {"value": (common.on_disk(order["dir"]) - empty) / order["n"] / 1024}}


async def nothing(order: dict[str, Any]) -> Figures:
    return {}


async def wake_by_age(order: dict[str, Any]) -> Figures:
    """A message is committed, its actor's row read, and what it came to committed."""
    schema = """create table inbox(id integer primary key, body text);
    create table state(id integer primary key, fields text);"""
    db = database(f"{order['dir']}/age.db", schema)
    db.execute("insert into state values(1, ?)", ('{"total":1}',))

    def apply(db: sqlite3.Connection, items: list[Any]) -> None:
        for item in items:
            for sql, values in item:
                db.execute(sql, values)

    writer, took = Writer(db, apply), []
    for number in range(20):
        with watch() as w:
            await writer.put([("insert into inbox values(?, ?)", (number, "{}"))])
            (fields,) = db.execute("select fields from state where id = 1").fetchone()
            state = json.dumps(json.loads(fields))
            done = ("update state set fields = ? where id = 1", (state,))
            await writer.put([done, ("delete from inbox where id = ?", (number,))])
        took.append(w)
    writer.close()
    took.sort(key=lambda w: w.wall)
    figure = {"value": took[10].wall * 1e3, "cpu": sum(w.cpu for w in took) / 20 * 1e3}
    return {"young": figure, "old": figure}


async def grow_wake(order: dict[str, Any]) -> Figures:
    read = (await long_resume(order))["resume"]
    return {"wake": {"value": read["value"] * 1e3, "cpu": read["cpu"] * 1e3}}


# ------------------------------------------------------------------------------------------------ tree
async def tree(order: dict[str, Any], key: str) -> Figures:
    """Tasks in nested groups: each tells the one above that it is there, waits, and ends when it is told to."""
    n, middles = order["n"], 100
    each = [(n - 1 - middles + i) // middles for i in range(middles)]
    there = asyncio.Event()
    up = 0

    def count() -> None:
        nonlocal up
        up += 1
        if up == n:
            there.set()

    async def leaf(box: asyncio.Queue[str]) -> None:
        count()
        assert await box.get() == "end"

    async def parent(box: asyncio.Queue[str], children: list[Any]) -> None:
        count()
        boxes: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in children]
        async with asyncio.TaskGroup() as group:
            for make, below in zip(children, boxes, strict=True):
                group.create_task(make(below))
            assert await box.get() == "end"
            for below in boxes:
                below.put_nowait("end")

    def middle(leaves: int) -> Any:
        return lambda box: parent(box, [leaf] * leaves)

    top: asyncio.Queue[str] = asyncio.Queue()
    with watch() as start:
        task = asyncio.create_task(parent(top, [middle(leaves) for leaves in each]))
        await there.wait()
    with watch() as stop:
        top.put_nowait("end")
        await task
    return {f"{key}start": start.per(1), f"{key}stop": stop.per(1)}


async def tree_memory(order: dict[str, Any]) -> Figures:
    return await tree(order, "")


async def tree_sqlite(order: dict[str, Any]) -> Figures:
    return await tree(order, "sqlite.")


# ------------------------------------------------------------------------------------------------ lanes
async def lanes(order: dict[str, Any]) -> Figures:
    n, folder = order["n"], order["dir"]
    idents = [f"{i:032x}" for i in range(n)]
    with open(f"{folder}/out.jsonl", "wb") as file:
        file.writelines(map(common.answer_line, idents))
    before = common.resident()
    with watch() as w:
        with open(f"{folder}/in.jsonl", "w") as file:
            for ident in idents:
                file.write(
                    f'{{"custom_id":"{ident}","method":"POST","url":"/v1/chat/completions","body":{common.ASKED}}}\n'
                )
        with open(f"{folder}/out.jsonl", "rb") as file, open(f"{folder}/kept.jsonl", "w") as kept:
            for line in file:
                answer = json.loads(line)
                kept.write(f"{answer['custom_id']} {json.dumps(answer['response']['body'])}\n")
    return {"lines": w.rate(n), "grown": {"value": (common.resident() - before) / 1e6}}


if __name__ == "__main__":
    common.serve(
        {
            "chain_memory": chain_memory,
            "chain_one": chain_one,
            "chain_hundred": chain_hundred,
            "llm": llm,
            "calls": calls,
            "served_memory": partial(served, "memory"),
            "served_sqlite": partial(served, "sqlite"),
            "parked": parked,
            "long_write": long_write,
            "long_resume": long_resume,
            "fanout_memory": fanout_memory,
            "fanout_sqlite": fanout_sqlite,
            "actor_memory": actor_memory,
            "actor_durable": actor_durable,
            "actor_sqlite": actor_sqlite,
            "idle_out": idle_out,
            "idle_in": idle_in,
            "heap_out": nothing,
            "heap_in": heap_in,
            "wake_by_age": wake_by_age,
            "grow_write": long_write,
            "grow_wake": grow_wake,
            "lanes": lanes,
            "tree_memory": tree_memory,
            "tree_sqlite": tree_sqlite,
        },
        common.versions("aiohttp"),
    )
