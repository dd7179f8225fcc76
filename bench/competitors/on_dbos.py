"""DBOS: asynchronous workflows and steps on its SQLite system database, as `DBOS(config=…)` sets that up
(rollback journal, `synchronous` at SQLite's FULL). There is no mode that keeps nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import common
from common import KB, LINE, QUESTION, Figures, watch
from dbos import DBOS, SetWorkflowID

FOREVER = 30 * 24 * 3600.0
session: Any = None
model_url = ""


@contextlib.asynccontextmanager
async def launched(order: dict[str, Any]) -> AsyncIterator[None]:
    url = f"sqlite:///{order['dir']}/dbos.db"
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy(workflow_completion_timeout_sec=0)


@DBOS.step()
async def noop(x: dict[str, Any]) -> dict[str, Any]:
    return KB


@DBOS.workflow()
async def chain(x: dict[str, Any]) -> None:
    for _ in range(5):
        x = await noop(x)


async def chains(order: dict[str, Any], key: str, at_once: int) -> Figures:
    async with launched(order):

        async def one(_: int) -> None:
            await chain(KB)

        await common.workers(1, range(5), one)
        with watch() as w:
            await common.workers(at_once, range(order["n"]), one)
    return {key: w.per(order["n"] * 5, 1e6)}


async def chain_one(order: dict[str, Any]) -> Figures:
    return await chains(order, "one", 1)


async def chain_hundred(order: dict[str, Any]) -> Figures:
    return await chains(order, "hundred", 100)


@DBOS.step()
async def call(prompt: str) -> str:
    body = {"model": "test", "messages": [{"role": "user", "content": prompt}]}
    async with session.post(f"{model_url}/chat/completions", json=body) as response:
        return (await response.json())["choices"][0]["message"]["content"]


@DBOS.workflow()
async def judge(text: str) -> str:
    for what in ("Read", "Judge", "Answer"):
        text = await call(f"{what}: {text}")
    return text


async def llm(order: dict[str, Any]) -> Figures:
    global session, model_url
    import aiohttp

    model_url, runs = order["url"], order["n"]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, launched(order):
        await asyncio.gather(*(judge("warm") for _ in range(5)))
        with watch() as w:
            await asyncio.gather(*(judge(f"Case {i}.") for i in range(runs)))
    return {"sqlite": w.rate(runs)}


@DBOS.workflow()
async def ask(i: int) -> str:
    await DBOS.set_event_async("question", QUESTION)
    return f"done: {await DBOS.recv_async(timeout_seconds=FOREVER)}"


async def parked(order: dict[str, Any]) -> Figures:
    async with launched(order):
        handles: dict[str, Any] = {}

        async def park(i: object) -> None:
            with SetWorkflowID(f"run-{i}"):
                handles[f"run-{i}"] = await DBOS.start_workflow_async(ask, 1)
            await DBOS.get_event_async(f"run-{i}", "question")

        async def wake(i: object) -> None:
            await DBOS.send_async(f"run-{i}", "yes")
            assert await handles.pop(f"run-{i}").get_result() == "done: yes"

        async def warm(i: int) -> None:
            await park(f"warm{i}")
            await wake(f"warm{i}")

        await common.workers(20, range(20), warm)
        n = order["n"]
        memory, disk = common.resident(), common.on_disk(order["dir"])
        await common.workers(100, range(n), park)
        kb = (common.resident() - memory) / n / 1024
        disk_kb = (common.on_disk(order["dir"]) - disk) / n / 1024
        with watch() as w:
            await common.workers(100, range(n), wake)
    return {"resident": {"value": kb}, "disk": {"value": disk_kb}, "wake": w.per(1)}


@DBOS.step()
async def line(i: int) -> str:
    return LINE


written = asyncio.Event()


@DBOS.workflow()
async def long(n: int) -> int:
    lines = [await line(i) for i in range(n)]
    written.set()
    await DBOS.recv_async(timeout_seconds=FOREVER)
    return len(lines)


async def long_write(order: dict[str, Any]) -> Figures:
    async with launched(order):
        with watch() as w:
            with SetWorkflowID("long"):
                await DBOS.start_workflow_async(long, order["n"])
            await written.wait()
        await asyncio.sleep(common.REST)
        common.leave({"time": w.per(1), "written": {"value": w.written / 1e6}})
    return {}


async def long_resume(order: dict[str, Any]) -> Figures:
    with watch() as w:
        async with launched(order):  # recovery begins at launch
            await DBOS.send_async("long", "yes")
            handle = await DBOS.retrieve_workflow_async("long")
            assert await handle.get_result() == order["n"]
    return {"resume": w.per(1)}


@DBOS.step()
async def square(i: int) -> int:
    return i * i


@DBOS.workflow()
async def fan(n: int) -> int:
    return sum(await asyncio.gather(*(square(i) for i in range(n))))


async def fanout_sqlite(order: dict[str, Any]) -> Figures:
    n = order["n"]
    async with launched(order):
        await fan(20)
        with watch() as w:
            assert await fan(n) == sum(i * i for i in range(n))
    return {"sqlite": w.per(1)}


if __name__ == "__main__":
    common.serve(
        {
            "chain_one": chain_one,
            "chain_hundred": chain_hundred,
            "llm": llm,
            "parked": parked,
            "long_write": long_write,
            "long_resume": long_resume,
            "fanout_sqlite": fanout_sqlite,
        },
        common.versions("dbos", "sqlalchemy", "aiohttp"),
    )
