"""What is compared: the rows of a job, or of a file of labels, in order of their keys."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from ..authoring.flow import FlowDef, target_named
from ..core.signature import InputShape
from ..model.errors import Conflict, InvalidValue
from ..model.run import ENDED, Head, Usage
from ..ports.store import Store
from ..runtime import family
from ..runtime.ground.names import unknown_job
from .agreement import Row, Times
from .outcomes import input_of
from .rows import BadFile, RowFile
from .screen import kind_of


class Side:
    """One side of a comparison, and what is counted as its rows pass."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_labels = False
        self.rows = self.done = self.failed = self.open = 0
        self.forked = False
        self.times = Times()
        self.usage: list[Usage] = []
        self.causes: Counter[str] = Counter()

    def each(self) -> AsyncIterator[Row]:
        """Its rows, in order of key."""
        raise NotImplementedError


class JobSide(Side):
    """The runs of a job. `by`: they are known by this field of their input, and not by their key."""

    def __init__(self, store: Store, job: str, by: str, shape: InputShape | None) -> None:
        super().__init__(job)
        self._store, self._by, self._shape = store, by, shape

    async def each(self) -> AsyncIterator[Row]:
        self.usage = (await family.spent(self._store, job=self.name)).usage
        if not self._by:
            async for head in family.rows(self._store, self.name):  # by id, which is the job's and the key
                yield self._row(head, head.id.removeprefix(f"{self.name}/"))
            return
        rows = [self._row(head, self._key(head)) async for head in family.rows(self._store, self.name)]
        for row in in_order(rows, self.name):
            yield row

    def _key(self, head: Head) -> str:
        given = msgspec.json.decode(input_of(head, self._shape))
        if not isinstance(given, dict) or self._by not in given:
            raise InvalidValue(
                "--by", "a field of every input", f"run {head.id!r} has none of that name", self._by
            )
        return str(given[self._by])

    def _row(self, head: Head, key: str) -> Row:
        self.rows += 1
        seconds = -1.0
        if head.spec.origin:
            self.forked = True
        elif head.status in ENDED:
            seconds = max(0.0, head.updated - head.spec.created)
        self.times.add(seconds)
        if head.status == "done":
            self.done += 1
            return Row(key, msgspec.json.decode(head.value or b"null"), seconds=seconds)
        if head.status not in ENDED:
            self.open += 1
            return Row(key, problem=f"it is {head.status}", seconds=seconds)
        self.failed += 1
        cause = kind_of(head.error.type) if head.error is not None else head.status
        self.causes[cause] += 1
        return Row(key, problem=cause, seconds=seconds)


class FileSide(Side):
    """A file of labels, or the output of `segue map`. A line is an object with its key and its `value`.

    Without a `value`, all its other fields are the label. `by` names the field that has the key, else `key`; where
    there is none, rows are known by their number.
    """

    def __init__(self, path: str, by: str) -> None:
        super().__init__(path)
        self.is_labels = True
        self._by = by

    async def each(self) -> AsyncIterator[Row]:
        with TemporaryDirectory(prefix="segue-") as directory:
            file = RowFile(self.name, Path(directory))
            rows = [
                self._row(number, raw.line, raw.value, raw.problem, file.is_csv)
                for number, raw in enumerate(file)
            ]
        for row in in_order(rows, self.name):
            yield row

    def _row(self, number: int, line: int, value: Any, problem: str, is_csv: bool) -> Row:
        if problem:
            raise BadFile(self.name, f"line {line}: {problem}", "mend that line")
        self.rows += 1
        self.done += 1
        if not isinstance(value, dict):
            return Row(str(number), value, loose=is_csv)
        field = self._by or "key"
        if self._by and field not in value:
            raise BadFile(
                self.name, f"line {line} has no field {field!r}", "--by names a field of every line"
            )
        key = str(value[field]) if field in value else str(number)
        if "value" in value:
            return Row(key, value["value"], loose=is_csv)
        if "error" in value and "input" in value:  # a line of the output of `segue map`
            self.done, self.failed = self.done - 1, self.failed + 1
            return Row(key, problem=str(value["error"].get("type", "error")))
        return Row(key, {name: each for name, each in value.items() if name != field}, loose=is_csv)


def in_order(rows: Iterable[Row], name: str) -> list[Row]:
    """Rows by key. Raises `Conflict` where two have the same."""
    ordered = sorted(rows, key=lambda row: row.key)
    for one, next in pairwise(ordered):
        if one.key == next.key:
            raise Conflict(
                f"{name}: two rows have the key {one.key!r}; --by names a field that tells rows apart"
            )
    return ordered


async def side_of(store: Store, name: str, by: str) -> Side:
    """The job of that name, or else the file. Raises `UnknownName`."""
    job = await store.get_job(name)
    if job is not None:
        target = target_named(job.target)
        return JobSide(store, name, by, target.shape if isinstance(target, FlowDef) else None)
    if await asyncio.to_thread(Path(name).is_file):
        return FileSide(name, by)
    if Path(name).suffix in (".csv", ".tsv", ".jsonl") or "/" in name:
        raise BadFile(name, "there is no such file, and no job of that name", "`segue runs` lists jobs")
    raise await unknown_job(store, name)


async def merged(a: Side, b: Side) -> AsyncIterator[tuple[Row | None, Row | None]]:
    """The rows of both by key, side by side; None where a side has none."""
    ones, others = a.each(), b.each()
    one, other = await anext(ones, None), await anext(others, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.key < other.key):
            yield one, None
            one = await anext(ones, None)
        elif one is None or other.key < one.key:
            yield None, other
            other = await anext(others, None)
        else:
            yield one, other
            one, other = await anext(ones, None), await anext(others, None)
