"""A job's output: one line a row, in the rows' order."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any
from uuid import uuid4

import msgspec

from ..core.signature import InputShape
from ..model.run import ENDED, Head
from ..ports.store import Store
from ..runtime.ground.listing import each_run
from .rows import BadFile, BoundRow
from .screen import kind_of, text_of


class Problem(msgspec.Struct):
    """Why a row has no value."""

    type: str
    message: str


class OutputLine(msgspec.Struct, omit_defaults=True):
    """A line of the output; `error` in place of `value` where there is none."""

    index: int
    key: str
    input: msgspec.Raw
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Problem | msgspec.UnsetType = msgspec.UNSET


class Order:
    """What comes where in the output, kept in a file while rows are read: the key of a run, or a finished line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unread = 0
        self.first_problem = ""
        self._file: IO[bytes] = path.open("w+b")

    def noting(self, rows: Iterable[BoundRow]) -> Iterator[BoundRow]:
        """The same rows, each noted as it passes."""
        encode = msgspec.json.encode
        for index, row in enumerate(rows):
            if row.error is None:
                self._file.write(encode(row.key) + b"\n")
            else:
                self.unread += 1
                self.first_problem = self.first_problem or str(row.error)
                problem = Problem(type(row.error).__name__, str(row.error))
                line = OutputLine(index, row.key, _raw(row.value), error=problem)
                self._file.write(encode(line) + b"\n")
            yield row

    def __iter__(self) -> Iterator[str | bytes]:
        """Keys as text, finished lines as bytes."""
        self._file.seek(0)
        for line in self._file:
            yield msgspec.json.decode(line, type=str) if line.startswith(b'"') else line.rstrip(b"\n")

    def close(self) -> None:
        self._file.close()


def _raw(value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except (UnicodeEncodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(repr(value)))


async def lines(
    store: Store,
    job: str,
    order: Iterable[tuple[int, str | bytes]],
    shape: InputShape | None,
    stuck: Mapping[str, Head] = MappingProxyType({}),
) -> AsyncIterator[bytes]:
    """The output lines of a job's rows, by number and key or line. `stuck`: those that wait for a held run, and it."""
    source = iter(order)
    while some := list(islice(source, 500)):
        keys = [each for _, each in some if isinstance(each, str)]
        heads = dict(
            zip(keys, await asyncio.gather(*(store.get(f"{job}/{key}") for key in keys)), strict=True)
        )
        for index, each in some:
            if isinstance(each, bytes):
                yield each
            else:
                yield line_of(index, each, heads[each], shape, stuck.get(f"{job}/{each}"))


async def all_lines(store: Store, job: str, shape: InputShape | None) -> AsyncIterator[bytes]:
    """The output lines of all runs of a job, in order."""
    places: list[tuple[int, str | bytes]] = []
    async for head in each_run(store, job=job):
        places.append((head.spec.index, head.id.removeprefix(f"{job}/")))
    places.sort(key=lambda place: place[0])
    async for line in lines(store, job, places, shape):
        yield line


def line_of(
    index: int, key: str, head: Head | None, shape: InputShape | None, beneath: Head | None = None
) -> bytes:
    """The output line of one run. `beneath`: the held one that it waits for."""
    if head is None:
        problem = Problem("UnknownName", "the run isn't in the store any more")
        return msgspec.json.encode(OutputLine(index, key, msgspec.Raw(b"null"), error=problem))
    line = OutputLine(index, key, input_of(head, shape))
    if head.status == "done":
        line.value = msgspec.Raw(head.value or b"null")
    elif head.error is not None:
        line.error = Problem(kind_of(head.error.type), text_of(head.error))
    elif head.status == "held":
        line.error = Problem("RunHeld", head.reason)
    elif beneath is not None:
        line.error = Problem("RunHeld", f"it waits for run {beneath.id}, which is held: {beneath.reason}")
    else:
        why = "it ended without a word" if head.status in ENDED else f"it isn't done: it is {head.status}"
        line.error = Problem("RunFailed", why)
    return msgspec.json.encode(line)


_call = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw]])


def input_of(head: Head, shape: InputShape | None) -> msgspec.Raw:
    """What a run was given: of a flow with one parameter its value, else an object by name."""
    if head.spec.kind == "actor":
        return msgspec.Raw(head.spec.args)  # its first fields
    args, kwargs = _call.decode(head.spec.args)
    if shape is None or len(shape.parameters) == 1:
        if len(args) == 1 and not kwargs:
            return args[0]
        if not args and len(kwargs) == 1 and shape is not None:
            return next(iter(kwargs.values()))
    names = [parameter.name for parameter in shape.parameters] if shape is not None else []
    if args and len(args) > len(names):
        return msgspec.Raw(head.spec.args)
    return msgspec.Raw(msgspec.json.encode({**dict(zip(names, args, strict=False)), **kwargs}))


@contextmanager
def replacing(path: str, *, durably: bool = True) -> Generator[IO[bytes]]:
    """A file to write that takes its place only when it is whole. Without a path, standard output.

    `durably`: it is on disk by then; of thousands, each would wait for that.
    """
    if not path or path == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # `segue map … | head`
            raise
        except OSError as error:
            raise BadFile(
                "standard output", f"it can't be written: {error.strerror}", "make room, or give -o FILE"
            ) from None
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # a pipe or a device, such as /dev/stdout
        try:
            with target.open("wb") as file:
                yield file
        except OSError as error:
            raise BadFile(path, f"it can't be written: {error.strerror}", "choose another -o") from None
        return
    target = target.resolve()  # a link stays one
    temporary = Path(f"{target}.{uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if durably:
                os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise BadFile(path, f"it can't be written: {error.strerror}", "choose another -o") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str, *read: str) -> None:
    """Find out before the work, not after it. What is `read` meanwhile isn't written over."""
    if not path or path == "-":
        return
    for name in read:
        other = Path(name.removeprefix("sqlite:"))
        if other.exists() and Path(path).exists() and other.samefile(path):
            raise BadFile(path, "it is read too, and would be written over", "choose another -o")
    directory = Path(path).parent
    if Path(path).is_dir():
        raise BadFile(path, "it is a directory", "give -o the name of a file")
    if not directory.is_dir():
        raise BadFile(path, f"there is no directory {str(directory)!r}", "make it, or choose another -o")
    if not os.access(directory, os.W_OK):
        raise BadFile(path, f"{str(directory)!r} can't be written to", "choose another -o")
