"""A pipeline: files → paragraphs → one line on each → a file of rows, with a route for what fails.

    segue run pipeline.py:pipeline '["a.txt", "b.txt"]' rows.txt --id rows --model openai:gpt-5-mini

Each stage starts as soon as the one before it has something, and is held back by the one behind it. Killed anywhere,
the same command goes on where it was, and no row is lost or written twice.
"""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import segue


@dataclass
class Paragraph:
    path: str
    number: int
    text: str


@segue.step(retry=segue.Retry(3, on=OSError))
def read(path: str) -> str:
    """A plain function: it runs on a thread."""
    return Path(path).read_text()


@segue.step(pool="process")
def split(path: str, text: str) -> list[Paragraph]:
    """Work for a core of its own: it runs in another process."""
    parts = [part.strip() for part in text.split("\n\n")]
    return [Paragraph(path, number, part) for number, part in enumerate(parts) if part]


async def paragraphs(path: str) -> list[Paragraph]:
    return await split(path, await read(path))


async def row(paragraph: Paragraph) -> str:
    said = await segue.generate(f"Say in one line: {paragraph.text}")
    return f"{paragraph.path}#{paragraph.number} {said}"


@segue.step
def append(path: str, at: int, rows: list[str]) -> int:
    """Write rows from byte `at` on, and say where the file ends then. Cut off and done again, it writes the same."""
    with open(path, "ab") as file:
        file.truncate(at)
        file.write("".join(f"{row}\n" for row in rows).encode())
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


@segue.flow
async def pipeline(paths: list[str], out: str = "rows.txt", failed: str = "failed.txt") -> int:
    """How many rows were written."""

    async def each() -> AsyncIterator[Paragraph]:  # fan-out, and the route for what fails
        lost = 0
        async for outcome in segue.map(paragraphs, paths, limit=8, errors="return"):
            if outcome.error is not None:
                lost = await append(failed, lost, [f"{outcome.input}: {outcome.error}"])
                continue
            for paragraph in outcome.value:
                yield paragraph

    rows = segue.map(row, each(), limit=100)  # with --batch, all of them are in one job
    end = count = 0
    async for some in segue.batched(rows, 50):
        end = await append(out, end, some)
        count += len(some)
    return count
