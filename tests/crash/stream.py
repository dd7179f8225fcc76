"""A pipeline that is killed: `stream.py STORE SINK`. It ends by saying how many rows it wrote."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import segue

ITEMS = 6000


@segue.step
async def page(number: int) -> list[int]:
    """A source that is read page by page."""
    return list(range(number * 100, min(number * 100 + 100, ITEMS)))


@segue.step
async def twice(n: int) -> int:
    if n % 50 == 7:
        raise ValueError(f"{n} ends with 07 or 57")
    await asyncio.sleep(0.0001 * (n % 5))
    return 2 * n


@segue.flow
async def streamed_item(n: int) -> int:
    return await twice(n) // 2


@segue.step
def sink(path: str, at: int, rows: list[str]) -> int:
    with open(path, "ab") as file:
        file.truncate(at)
        file.write("".join(f"{row}\n" for row in rows).encode())
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


async def pages() -> AsyncIterator[int]:
    number = 0
    while some := await page(number):
        number += 1
        for item in some:
            yield item


@segue.flow
async def stream(path: str) -> int:
    bad = 0

    async def good() -> AsyncIterator[int]:
        nonlocal bad
        async for outcome in segue.map(twice, pages(), limit=20, ordered=False, errors="return"):
            if outcome.error is None:
                yield outcome.value
            else:
                bad = await sink(f"{path}.bad", bad, [str(outcome.input)])

    async def other() -> AsyncIterator[int]:
        async for n in segue.map(streamed_item, range(ITEMS, ITEMS + 300), limit=20, errors="skip"):
            yield 2 * n

    end = count = 0
    async for rows in segue.batched(segue.merged(good(), other()), 37, within=timedelta(seconds=0.2)):
        end = await sink(path, end, [str(row) for row in rows])
        count += len(rows)
    return count


async def main(store: str, path: str) -> None:
    async with segue.Engine(store) as engine:
        print("begun", flush=True)
        run = await engine.start(stream(path), id="stream")
        print(await run, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
