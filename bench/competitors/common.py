"""What every competitor needs: the payload, the clocks, and the loop that takes orders from `run.py`.

A competitor is a process of its own. It reads one JSON object a line from standard input, `{"do": name, …}`,
and answers with one line: the figures of one round, or why there are none. Only the standard library is used
here, since each competitor lives in another environment.
"""

import asyncio
import contextlib
import ctypes
import gc
import importlib.metadata
import json
import os
import resource
import sqlite3
import sys
import time
import traceback
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

KB = {  # 1,040 bytes of JSON: what a step returns in the chain
    "id": 17,
    "text": "lorem ipsum dolor sit amet " * 22,
    "tags": ["a", "b", "c"],
    "score": 0.73,
    "meta": {f"k{i}": f"v{i}" for i in range(20)},
}
LINE = "x" * 198  # 200 bytes as JSON: what a step of a long run returns
QUESTION = "Shall this order be refunded? The customer has written twice."
ASKED = json.dumps(  # a request of 600 bytes, as a line of a batch has it
    {
        "model": "m",
        "messages": [{"role": "user", "content": "lorem ipsum dolor sit amet " * 19}],
        "max_tokens": 100,
    }
)
_ANSWER = json.dumps(  # and its answer
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "consectetur adipiscing elit " * 12},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 120, "completion_tokens": 80, "total_tokens": 200},
    }
)
REST = 0.5  # seconds between a run's coming to wait and the death of its process: no lease is held any more

Figures = dict[str, Any]
Handler = Callable[[dict[str, Any]], Awaitable[Figures]]


def answer_line(ident: str) -> bytes:
    """A line of a batch's results."""
    told = f'{{"status_code": 200, "request_id": "r", "body": {_ANSWER}}}'
    return f'{{"id": "b", "custom_id": "{ident}", "response": {told}, "error": null}}\n'.encode()


class NotMeasured(Exception):
    """Why there is no figure. It is printed in place of one."""


def leave(figures: Figures) -> NoReturn:
    """Hand in the figures of a round and end as a crash does: nothing is closed, nothing cleaned up."""
    tell({"figures": figures})
    os._exit(0)


class Watch:
    """Wall time, CPU time of this process (all threads), and bytes handed to write(2) and its like."""

    wall = cpu = 0.0
    written = 0

    def per(self, n: int, scale: float = 1.0) -> Figures:
        return {"value": self.wall / n * scale, "cpu": self.cpu / n * scale}

    def rate(self, n: int) -> Figures:
        return {"value": n / self.wall, "cpu": n / self.cpu if self.cpu else None}


@contextlib.contextmanager
def watch() -> Iterator[Watch]:
    w = Watch()
    gc.collect()
    written, cpu, wall = bytes_written(), time.process_time(), time.perf_counter()
    try:
        yield w
    finally:
        w.wall, w.cpu = time.perf_counter() - wall, time.process_time() - cpu
        w.written = bytes_written() - written


def bytes_written() -> int:
    try:
        with open("/proc/self/io") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("wchar"))
    except OSError:
        return 0


def resident() -> int:
    """Bytes resident now, after what is free was handed back."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return resident_now()


def resident_now() -> int:
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * resource.getpagesize()
    except OSError as e:
        raise NotMeasured("resident size is read from /proc") from e


def heap() -> int:
    """Bytes that Python objects hold now; the first call begins to count."""
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start(1)
    return tracemalloc.get_traced_memory()[0]


def on_disk(folder: str) -> int:
    """Bytes of all databases below a folder, with what their logs hold that is not yet in them."""
    total = 0
    for path in Path(folder).rglob("*"):
        if not path.is_file() or path.name.endswith(("-wal", "-shm", "-journal")):
            continue
        if Path(f"{path}-wal").exists():
            with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
                _, log, moved = db.execute("pragma wal_checkpoint(passive)").fetchone()
            total += max(0, log - moved) * 4096
        total += path.stat().st_size
    return total


async def workers(n: int, jobs: Iterator[Any] | Any, act: Callable[[Any], Awaitable[Any]]) -> None:
    """Carry out all jobs, n at a time."""
    todo = iter(jobs)

    async def worker() -> None:
        for job in todo:
            await act(job)

    await asyncio.gather(*(worker() for _ in range(n)))


async def served(n: int, request: Callable[[int], Awaitable[Any]], a_second: int = 600) -> Figures:
    """Let requests come in at a steady pace, each in a task of its own; how long they took, from when they were due.

    Before, a thousand at once, twice: connections are open then, and no side begins cold. Before all, one alone, for
    which some load what they need once in a process: that is no run's memory.
    """
    await request(0)
    loop, before, at_once = asyncio.get_running_loop(), resident(), 1000
    for _ in range(2):
        await asyncio.gather(*map(request, range(at_once)))
    took: list[float] = []
    ended: list[float] = []
    largest = resident_now()

    async def one(i: int, due: float) -> None:
        await request(i)
        ended.append(loop.time())
        took.append(ended[-1] - due)

    begun, cpu = loop.time(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for i in range(n):
            due = begun + i / a_second
            if (ahead := due - loop.time()) > 0:
                await asyncio.sleep(ahead)
            group.create_task(one(i, due))
            if i % 100 == 0:
                largest = max(largest, resident_now())
    cpu = time.process_time() - cpu
    took.sort()
    return {
        "p50": {"value": took[n // 2]},
        "p99": {"value": took[n * 99 // 100]},
        "rate": {"value": n / (ended[-1] - ended[0]), "cpu": n / cpu},
        "held": {"value": (largest - before) / at_once / 1024},
    }


def versions(*packages: str) -> dict[str, str]:
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


out: IO[str]


def tell(value: Any) -> None:
    out.write(json.dumps(value) + "\n")
    out.flush()


def serve(handlers: dict[str, Handler], about: dict[str, str]) -> None:
    """Take orders until standard input ends. What a library prints goes to standard error."""
    global out
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tell({"about": about, "python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version})
    for line in sys.stdin:
        order = json.loads(line)
        handler = handlers.get(order["do"])
        if handler is None:
            tell({"error": "not written"})
            continue
        try:
            figures = asyncio.run(handler(order))
        except NotMeasured as e:
            tell({"error": str(e)})
        except Exception as e:
            traceback.print_exc()
            tell({"error": (f"{type(e).__name__}: {e}".splitlines() or [""])[0][:200]})
        else:
            tell({"figures": figures})
    os._exit(0)  # a library's threads must not keep a round waiting
