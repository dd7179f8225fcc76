"""segue: flows and steps on `memory:` and `sqlite:`, as its users write them."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
from common import KB, LINE, QUESTION, Figures, NotMeasured, watch

import segue


def engine(order: dict[str, Any], **how: Any) -> Any:
    return segue.Engine(f"sqlite:{order['dir']}/segue.db", **how)


# ------------------------------------------------------------------------------------------------ chain
@segue.step
async def noop(x: dict[str, Any]) -> dict[str, Any]:
    return KB


@segue.flow
async def chain(x: dict[str, Any]) -> None:
    for _ in range(5):
        x = await noop(x)


async def chains(order: dict[str, Any], key: str, made: Any, at_once: int) -> Figures:
    async with made as e:

        async def one(_: int) -> None:
            await e.run(chain(KB))

        await common.workers(1, range(20), one)
        with watch() as w:
            await common.workers(at_once, range(order["n"]), one)
    return {key: w.per(order["n"] * 5, 1e6)}


async def chain_memory(order: dict[str, Any]) -> Figures:
    return await chains(order, "memory", segue.Engine("memory:"), 1)


async def chain_one(order: dict[str, Any]) -> Figures:
    return await chains(order, "one", engine(order), 1)


async def chain_hundred(order: dict[str, Any]) -> Figures:
    return await chains(order, "hundred", engine(order), 100)


# ------------------------------------------------------------------------------------------------ llm mix
@segue.flow
async def judge(text: str) -> str:
    for what in ("Read", "Judge", "Answer"):
        text = await segue.generate(f"{what}: {text}")
    return text


async def llm(order: dict[str, Any]) -> Figures:
    runs, figures = order["n"], {}
    how = {"model": f"openai:test@{order['url']}", "mode": segue.Live(concurrency=2000)}
    for key, made in (
        ("memory", segue.Engine("memory:", **how)),
        ("sqlite", engine(order, **how)),
    ):
        async with made as e:
            await asyncio.gather(*(e.run(judge(f"Before {i}.")) for i in range(runs)))
            with watch() as w:
                await asyncio.gather(*(e.run(judge(f"Case {i}.")) for i in range(runs)))
        figures[key] = w.rate(runs)
    return figures


@segue.flow
async def answer(i: int) -> str:
    return await segue.generate(f"Case {i}.")


@segue.flow
async def answers(i: int) -> None:
    for n in range(20):
        await segue.generate(f"Case {i}, {n}.")


async def calls(order: dict[str, Any]) -> Figures:
    how = {"model": f"openai:test@{order['url']}", "mode": segue.Live(concurrency=200)}
    n, figures = order["n"], {}
    for key, made, flow, each in (
        ("memory", segue.Engine("memory:", **how), answer, 1),
        ("sqlite", engine(order, **how), answer, 1),
        ("long", segue.Engine(f"sqlite:{order['dir']}/long.db", **how), answers, 20),
    ):
        async with made as e:

            async def one(i: int, e: Any = e, flow: Any = flow) -> None:
                await e.run(flow(i))

            await common.workers(100, range(300 // each), one)
            with watch() as w:
                await common.workers(100, range(n // each), one)
        figures[key] = w.rate(n // each * each)
    return figures


async def served(where: str, order: dict[str, Any]) -> Figures:
    made = {"model": f"openai:test@{order['url']}", "mode": segue.Live(concurrency=2000)}
    async with segue.Engine("memory:", **made) if where == "memory" else engine(order, **made) as e:

        async def request(i: int) -> str:
            run = await e.start(answer(i))
            return "".join([text async for text in run.text()])

        figures = await common.served(order["n"], request)
    return {f"{where}.{key}": figure for key, figure in figures.items()}


# ------------------------------------------------------------------------------------------------ parked
@segue.flow
async def ask(i: int) -> str:
    return f"done: {await segue.ask(QUESTION)}"


async def until_asked(e: Any, n: int) -> None:
    seen = 0
    async for _ in e.asks():
        seen += 1
        if seen == n:
            return


#: More than are at work at once: what a process needs for these isn't counted with those that wait.
AT_WORK = 3000


async def parked(order: dict[str, Any]) -> Figures:
    async with engine(order) as e:

        async def park_and_wake(n: int, id: str) -> tuple[int, int, common.Watch]:
            job = e.map(ask, range(n), id=id)
            await until_asked(e, n)
            await asyncio.sleep(common.REST)
            held, disk = common.resident(), common.on_disk(order["dir"])

            async def answers() -> None:
                answered = 0

                async def answer(a: Any) -> None:
                    await a.answer("yes")

                async with asyncio.TaskGroup() as group:
                    async for a in e.asks():
                        group.create_task(answer(a))
                        answered += 1
                        if answered == n:
                            return

            with watch() as w:
                await answers()
                outcomes = await job
            assert len(outcomes) == n
            assert outcomes[0] == "done: yes"
            return held, disk, w

        n = order["n"]
        await park_and_wake(min(n, AT_WORK), "warm")
        memory, disk = common.resident(), common.on_disk(order["dir"])
        memory_after, disk_after, w = await park_and_wake(n, "parked")
    return {
        "resident": {"value": (memory_after - memory) / n / 1024},
        "disk": {"value": (disk_after - disk) / n / 1024},
        "wake": w.per(1),
    }


# ------------------------------------------------------------------------------------------------ long
@segue.step
async def line(i: int) -> str:
    return LINE


@segue.flow
async def long(n: int) -> int:
    lines = [await line(i) for i in range(n)]
    await segue.ask(QUESTION)
    return len(lines)


async def long_write(order: dict[str, Any]) -> Figures:
    async with engine(order) as e:
        with watch() as w:
            await e.start(long(order["n"]), id="long")
            await until_asked(e, 1)
        await asyncio.sleep(common.REST)
        common.leave({"time": w.per(1), "written": {"value": w.written / 1e6}})
    return {}


async def long_resume(order: dict[str, Any]) -> Figures:
    with watch() as w:
        async with engine(order) as e:
            run = await e.start(long(order["n"]), id="long")
            async for a in e.asks():
                await a.answer("yes")
                break
            assert await run == order["n"]
    return {"resume": w.per(1)}


# ------------------------------------------------------------------------------------------------ fan-out
@segue.step
async def square(i: int) -> int:
    return i * i


@segue.flow
async def fan(n: int) -> int:
    return sum(await asyncio.gather(*(square(i) for i in range(n))))


async def fanout(order: dict[str, Any], key: str, made: Any) -> Figures:
    n = order["n"]
    async with made as e:
        await e.run(fan(50))
        with watch() as w:
            assert await e.run(fan(n)) == sum(i * i for i in range(n))
    return {key: w.per(1)}


async def fanout_memory(order: dict[str, Any]) -> Figures:
    return await fanout(order, "memory", segue.Engine("memory:"))


async def fanout_sqlite(order: dict[str, Any]) -> Figures:
    return await fanout(order, "sqlite", engine(order))


# ------------------------------------------------------------------------------------------------ actor
def counter() -> Any:
    """The actor's class; made when asked for, so that the other works run without actors too."""
    if not hasattr(segue, "Actor"):
        raise NotMeasured("segue has no actors yet")
    import actors_of_segue

    return actors_of_segue


async def actor_memory(order: dict[str, Any]) -> Figures:
    actors, n, trips = counter(), order["n"], order["n"] // 5
    async with segue.Engine("memory:") as e:
        one = await e.start(actors.Counter(), id="counter")
        await one.request(actors.Ask(0))
        with watch() as one_way:
            for _ in range(n):
                await one.tell(actors.Tick())
            assert await one.request(actors.Total()) == n
        with watch() as round_trip:
            for i in range(trips):
                assert await one.request(actors.Ask(i)) == i + 1
    return {"one-way": one_way.rate(n), "round": round_trip.rate(trips)}


async def actor_durable(order: dict[str, Any]) -> Figures:
    actors, each = counter(), order["n"] // 100
    async with engine(order) as e:
        all_actors = [await e.start(actors.Counter(), id=f"counter/{i}") for i in range(100)]

        async def sender(one: Any) -> None:
            for _ in range(each):
                await one.tell(actors.Tick())
            assert await one.request(actors.Total()) == each

        with watch() as w:
            await asyncio.gather(*map(sender, all_actors))
    return {"durable": w.rate(each * 100)}


async def actor_sqlite(order: dict[str, Any]) -> Figures:
    actors, each, trips = counter(), order["n"] // 100, order["n"] // 20
    async with engine(order) as e:
        one = await e.start(actors.Counter(), id="counter")
        await one.request(actors.Ask(0))

        async def sender() -> None:
            for _ in range(each):
                await one.tell(actors.Tick())

        with watch() as one_way:
            await asyncio.gather(*(sender() for _ in range(100)))
            assert await one.request(actors.Total()) == each * 100
        with watch() as round_trip:
            for i in range(trips):
                assert await one.request(actors.Ask(i)) == i + 1
    return {"sqlite.one-way": one_way.rate(each * 100), "sqlite.round": round_trip.rate(trips)}


# ------------------------------------------------------------------------------------------------ idle
async def idle(order: dict[str, Any], *, stay: bool, size: Callable[[], int]) -> tuple[float, float]:
    """What each actor holds that waits for its next message, in KB: measured by `size`, and on disk."""
    from segue.runtime.wake import handling

    actors, n = counter(), order["n"]
    if stay:
        handling.REST = 1e6  # type: ignore[misc]  # else each leaves after 0.05 s
    async with engine(order, room=2 * n + 4000 if stay else 2000) as e:

        async def begin(i: int) -> None:
            run = await e.start(actors.Counter(), id=f"counter/{i}")
            await run.tell(actors.Tick())

        async def settled() -> None:
            while (len(e.worker.awake) < n) if stay else e.worker.awake:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)

        await common.workers(100, range(n, n + AT_WORK), begin)
        await asyncio.sleep(1)
        before, on_disk = size(), common.on_disk(order["dir"])
        await common.workers(100, range(n), begin)
        await settled()
        held = size() - before
        disk = common.on_disk(order["dir"]) - on_disk
    return held / n / 1024, disk / n / 1024


async def idle_out(order: dict[str, Any]) -> Figures:
    held, disk = await idle(order, stay=False, size=common.resident)
    return {"out": {"value": held}, "disk": {"value": disk}}


async def idle_in(order: dict[str, Any]) -> Figures:
    held, _ = await idle(order, stay=True, size=common.resident)
    return {"in": {"value": held}}


async def heap_out(order: dict[str, Any]) -> Figures:
    held, _ = await idle(order, stay=False, size=common.heap)
    return {"heap-out": {"value": held}}


async def heap_in(order: dict[str, Any]) -> Figures:
    held, _ = await idle(order, stay=True, size=common.heap)
    return {"heap-in": {"value": held}}


# ------------------------------------------------------------------------------------------------ age
async def asked_asleep(e: Any, run: Any, times: int, total: int) -> Figures:
    """How long it takes to ask an actor that isn't in memory, in ms: the median."""
    took: list[float] = []
    cpu = 0.0
    for _ in range(times):
        while run.id in e.worker.awake:
            await asyncio.sleep(0.01)
        with watch() as w:
            assert await run.request(counter().Total()) == total
        took.append(w.wall)
        cpu += w.cpu
    return {"value": sorted(took)[times // 2] * 1e3, "cpu": cpu / times * 1e3}


async def wake_by_age(order: dict[str, Any]) -> Figures:
    actors, figures = counter(), {}
    async with engine(order) as e:
        for key, n in (("young", 10), ("old", order["n"])):
            one = await e.start(actors.Counter(), id=key)
            await common.workers(min(n, 1000), range(n), lambda _, one=one: one.tell(actors.Tick()))
            assert await one.request(actors.Total()) == n
            figures[key] = await asked_asleep(e, one, 20, n)
    return figures


async def grow_write(order: dict[str, Any]) -> Figures:
    actors, n = counter(), order["n"]
    async with engine(order) as e:
        with watch() as w:
            run = await e.start(actors.Grown(n), id="grown")
            assert await run.request(actors.Total()) == n
        await asyncio.sleep(common.REST)
        common.leave({"time": w.per(1), "written": {"value": w.written / 1e6}})
    return {}


async def grow_wake(order: dict[str, Any]) -> Figures:
    actors = counter()
    async with engine(order) as e:
        other = await e.start(actors.Counter(), id="other")
        assert await other.request(actors.Total()) == 0
        run = await e.start(actors.Grown(order["n"]), id="grown")
        return {"wake": await asked_asleep(e, run, 20, order["n"])}


# ------------------------------------------------------------------------------------------------ tree
async def tree(e: Any, key: str, n: int) -> Figures:
    actors, middles = counter(), 100
    each = [(n - 1 - middles + i) // middles for i in range(middles)]
    with watch() as start:
        top = await e.start(actors.Top(each), id="top")
        assert await top.request(actors.Size()) == n
    with watch() as stop:
        await top.interrupt()
        head = await e.wait("top")
        assert head.status == "cancelled", head
    return {f"{key}start": start.per(1), f"{key}stop": stop.per(1)}


async def tree_memory(order: dict[str, Any]) -> Figures:
    async with segue.Engine("memory:") as e:
        return await tree(e, "", order["n"])


async def tree_sqlite(order: dict[str, Any]) -> Figures:
    async with engine(order) as e:
        return await tree(e, "sqlite.", order["n"])


# ------------------------------------------------------------------------------------------------ lanes
async def lanes(order: dict[str, Any]) -> Figures:
    import lanes_of_segue as far

    n, provider = order["n"], far.Far(Path(order["dir"]))
    async with engine(order, mode="batch", worker=False, providers={"far": lambda _: provider}) as e:
        await far.fill(e.store, n)
        before = common.resident()
        with watch() as w:
            while await e.lanes.sweep(poll_now=True) is not None:
                pass
        grown = common.resident() - before
        assert await e.store.line_counts() == {"ok": n}
    w.wall -= provider.spent
    w.cpu -= provider.spent
    return {"lines": w.rate(n), "grown": {"value": grown / 1e6}}


if __name__ == "__main__":
    if not hasattr(segue, "Engine"):
        raise SystemExit("segue has no engine yet")
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
            "heap_out": heap_out,
            "heap_in": heap_in,
            "wake_by_age": wake_by_age,
            "grow_write": grow_write,
            "grow_wake": grow_wake,
            "lanes": lanes,
            "tree_memory": tree_memory,
            "tree_sqlite": tree_sqlite,
        },
        common.versions("segue", "msgspec", "aiohttp"),
    )
