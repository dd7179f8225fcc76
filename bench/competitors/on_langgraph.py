"""LangGraph: a compiled `StateGraph` with a checkpointer. SQLite is its `AsyncSqliteSaver`, which sets WAL and
leaves `synchronous` at SQLite's FULL; `durability="sync"` makes a step wait until the one before it is kept."""

import asyncio
import contextlib
import operator
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

import common
from common import KB, LINE, QUESTION, Figures, watch
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt


def config(thread: object, **more: Any) -> Any:
    return {"configurable": {"thread_id": str(thread)}, **more}


@contextlib.asynccontextmanager
async def sqlite(order: dict[str, Any]) -> AsyncIterator[AsyncSqliteSaver]:
    async with AsyncSqliteSaver.from_conn_string(f"{order['dir']}/langgraph.db") as saver:
        await saver.setup()
        yield saver


# ------------------------------------------------------------------------------------------------ chain
class Chain(TypedDict):
    x: dict[str, Any]


async def noop(state: Chain) -> Chain:
    return {"x": KB}


def chain(saver: Any) -> Any:
    graph = StateGraph(Chain)
    names = [f"step{i}" for i in range(5)]
    for name in names:
        graph.add_node(name, noop)
    for a, b in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(a, b)
    return graph.compile(checkpointer=saver)


async def chains(order: dict[str, Any], key: str, saver: Any, at_once: int) -> Figures:
    app = chain(saver)

    async def one(i: int) -> None:
        await app.ainvoke({"x": KB}, config(i), durability="sync")

    await common.workers(1, range(-5, 0), one)
    with watch() as w:
        await common.workers(at_once, range(order["n"]), one)
    return {key: w.per(order["n"] * 5, 1e6)}


async def chain_memory(order: dict[str, Any]) -> Figures:
    return await chains(order, "memory", InMemorySaver(), 1)


async def chain_one(order: dict[str, Any]) -> Figures:
    async with sqlite(order) as saver:
        return await chains(order, "one", saver, 1)


async def chain_hundred(order: dict[str, Any]) -> Figures:
    async with sqlite(order) as saver:
        return await chains(order, "hundred", saver, 100)


# ------------------------------------------------------------------------------------------------ llm mix
class Case(TypedDict):
    text: str


async def llm(order: dict[str, Any]) -> Figures:
    import aiohttp

    runs, url = order["n"], f"{order['url']}/chat/completions"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        def node(what: str) -> Any:
            async def call(state: Case) -> Case:
                prompt = f"{what}: {state['text']}"
                body = {"model": "test", "messages": [{"role": "user", "content": prompt}]}
                async with session.post(url, json=body) as response:
                    return {"text": (await response.json())["choices"][0]["message"]["content"]}

            return call

        graph = StateGraph(Case)
        names = ["Read", "Judge", "Answer"]
        for name in names:
            graph.add_node(name, node(name))
        for a, b in zip([START, *names], [*names, END], strict=True):
            graph.add_edge(a, b)

        async def measure(saver: Any) -> Figures:
            app = graph.compile(checkpointer=saver)

            async def flow(i: object) -> None:
                await app.ainvoke({"text": f"Case {i}."}, config(i), durability="sync")

            await asyncio.gather(*(flow(f"warm{i}") for i in range(5)))
            with watch() as w:
                await asyncio.gather(*(flow(i) for i in range(runs)))
            return w.rate(runs)

        figures = {"memory": await measure(InMemorySaver())}
        async with sqlite(order) as saver:
            figures["sqlite"] = await measure(saver)
    return figures


# ------------------------------------------------------------------------------------------------ parked
class Order(TypedDict):
    id: int
    answer: str


async def ask(state: Order) -> dict[str, str]:
    return {"answer": "done: " + interrupt(QUESTION)}


async def parked(order: dict[str, Any]) -> Figures:
    n = order["n"]
    graph = StateGraph(Order)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    async with sqlite(order) as saver:
        app = graph.compile(checkpointer=saver)

        async def park(i: object) -> None:
            await app.ainvoke({"id": 1}, config(i), durability="sync")

        async def wake(i: object) -> None:
            state = await app.ainvoke(Command(resume="yes"), config(i), durability="sync")
            assert state["answer"] == "done: yes"

        for i in range(50):
            await park(f"warm{i}")
            await wake(f"warm{i}")
        memory, disk = common.resident(), common.on_disk(order["dir"])
        await common.workers(100, range(n), park)
        kb = (common.resident() - memory) / n / 1024
        disk_kb = (common.on_disk(order["dir"]) - disk) / n / 1024
        with watch() as w:
            await common.workers(100, range(n), wake)
    return {"resident": {"value": kb}, "disk": {"value": disk_kb}, "wake": w.per(1)}


# ------------------------------------------------------------------------------------------------ long
class Long(TypedDict):
    lines: Annotated[list[str], operator.add]


def long(saver: Any, n: int) -> Any:
    async def step(state: Long) -> Long:
        return {"lines": [LINE]}

    async def end(state: Long) -> Long:
        return {"lines": [interrupt(QUESTION)]}

    graph = StateGraph(Long)
    graph.add_node("step", step)
    graph.add_node("end", end)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: "step" if len(state["lines"]) < n else "end")
    graph.add_edge("end", END)
    return graph.compile(checkpointer=saver)


async def long_write(order: dict[str, Any]) -> Figures:
    n = order["n"]
    async with sqlite(order) as saver:
        with watch() as w:
            state = await long(saver, n).ainvoke(
                {"lines": []}, config(1, recursion_limit=n + 10), durability="sync"
            )
        assert len(state["lines"]) == n
        common.leave({"time": w.per(1), "written": {"value": w.written / 1e6}})
    return {}


async def long_resume(order: dict[str, Any]) -> Figures:
    with watch() as w:
        async with sqlite(order) as saver:
            app = long(saver, order["n"])
            state = await app.ainvoke(Command(resume="yes"), config(1), durability="sync")
    assert len(state["lines"]) == order["n"] + 1
    return {"resume": w.per(1)}


# ------------------------------------------------------------------------------------------------ fan-out
class Fan(TypedDict):
    items: list[int]
    squares: Annotated[list[int], operator.add]


async def fanout(order: dict[str, Any], key: str, saver: Any) -> Figures:
    async def step(item: dict[str, int]) -> dict[str, list[int]]:
        return {"squares": [item["i"] * item["i"]]}

    async def join(state: Fan) -> dict[str, list[int]]:
        assert len(state["squares"]) == len(state["items"])
        return {}

    graph = StateGraph(Fan)
    graph.add_node("step", step)
    graph.add_node("join", join)
    graph.add_conditional_edges(START, lambda s: [Send("step", {"i": i}) for i in s["items"]], ["step"])
    graph.add_edge("step", "join")
    graph.add_edge("join", END)
    app = graph.compile(checkpointer=saver)
    await app.ainvoke({"items": list(range(50))}, config("warm"), durability="sync")
    with watch() as w:
        await app.ainvoke({"items": list(range(order["n"]))}, config(1), durability="sync")
    return {key: w.per(1)}


async def fanout_memory(order: dict[str, Any]) -> Figures:
    return await fanout(order, "memory", InMemorySaver())


async def fanout_sqlite(order: dict[str, Any]) -> Figures:
    async with sqlite(order) as saver:
        return await fanout(order, "sqlite", saver)


if __name__ == "__main__":
    common.serve(
        {
            "chain_memory": chain_memory,
            "chain_one": chain_one,
            "chain_hundred": chain_hundred,
            "llm": llm,
            "parked": parked,
            "long_write": long_write,
            "long_resume": long_resume,
            "fanout_memory": fanout_memory,
            "fanout_sqlite": fanout_sqlite,
        },
        common.versions("langgraph", "langgraph-checkpoint-sqlite", "aiohttp"),
    )
