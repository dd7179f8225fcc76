"""Processes for work that needs a core of its own: `@segue.step(pool="process")`.

Each is a fresh interpreter that imports the module which the work is named in, and speaks over its own standard
streams: work and results are JSON in frames, so nothing is pickled. One that is given up or crashes is ended, and
nothing else with it; the next work gets a new one. It ends itself, even in the middle of its work, when this process
is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
import traceback
from asyncio import subprocess
from collections.abc import Callable, Generator
from contextvars import Context
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any, BinaryIO

import msgspec

from ...authoring.failures import to_exception, to_failure
from ...authoring.pooled import Named, within
from ...model.entry import Failure
from ...model.errors import ProcessDied, WrongPlace
from .room import Room

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    " from segue.runtime.calls.processes import serve; serve()"
)
_LENGTH = 8


class _Order(msgspec.Struct, array_like=True):
    work: Named
    module_file: str


class _Result(msgspec.Struct, array_like=True):
    value: bytes | None = None
    error: Failure | None = None
    trace: str = ""


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


class Processes:
    """Up to `size` processes, made when first needed and kept; work waits its turn."""

    def __init__(self, size: int = 0) -> None:
        self._size = size or cores()
        self._room = Room(self._size, "a process")
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def perform(
        self, work: Named, timeout: float | None, told: Callable[[str], None] | None = None
    ) -> bytes:
        """Have work done. Raises what it raised, `OverTime`, or `ProcessDied` if its process crashed.

        The time that it waits for a process doesn't count; where that is long, `told` hears of it.
        """
        order = msgspec.msgpack.encode(_Order(_by_its_name(work), _file_of(work.module)))
        async with self._room.place(told):
            process = self._idle.pop() if self._idle else _Process()
            self._all.add(process)
            try:
                await process.start()
                reply = await within(timeout, process.ask(order))
            except _GONE:
                code = await process.exit_code()
                self._end(process)
                raise ProcessDied(work.label, code) from None
            except BaseException:
                self._end(process)
                raise
            self._idle.append(process)
        return _outcome(msgspec.msgpack.decode(reply, type=_Result))

    def _end(self, process: _Process) -> None:
        process.kill()
        task = asyncio.Task(self._reap(process), loop=asyncio.get_running_loop())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _reap(self, process: _Process) -> None:
        await process.wait()
        self._all.discard(process)

    async def close(self) -> None:
        """End them all."""
        self._idle.clear()
        for process in list(self._all):
            self._end(process)
        while self._ending:
            await asyncio.wait(set(self._ending))


#: What it is like to speak with a process that is gone.
_GONE = (asyncio.IncompleteReadError, ConnectionError)


class _Process:
    """One of them, as seen from here."""

    def __init__(self) -> None:
        self._process: subprocess.Process | None = None

    async def start(self) -> None:
        """Make it, if it isn't there yet."""
        if self._process is None:
            starting = asyncio.Task(self._start(), loop=asyncio.get_running_loop(), context=Context())
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                await starting  # so that it can be ended; this takes a millisecond or two
                raise

    async def ask(self, order: bytes) -> bytes:
        """Send work and wait for its result."""
        process = self._process
        assert process is not None  # just started, or before
        assert process.stdin is not None  # pipes
        assert process.stdout is not None
        process.stdin.write(len(order).to_bytes(_LENGTH, "big") + order)
        await process.stdin.drain()
        length = int.from_bytes(await process.stdout.readexactly(_LENGTH), "big")
        return await process.stdout.readexactly(length)

    async def _start(self) -> None:
        self._process = await subprocess.create_subprocess_exec(
            sys.executable,
            "-c",
            _START,
            json.dumps(sys.path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which ends them
        )

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def exit_code(self) -> int:
        """What it ended with, of its own accord if it does so soon; minus the signal, if it was one."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), 1.0)
        self.kill()
        return await self.wait()

    async def wait(self) -> int:
        if self._process is None:
            return 0
        if self._process.stdin is not None:
            self._process.stdin.close()
        return await self._process.wait()


def _outcome(result: _Result) -> bytes:
    if result.error is None:
        assert result.value is not None  # one of both
        return result.value
    error = to_exception(result.error)
    error.__segue_again__ = result.error.again  # type: ignore[attr-defined]  # its policy judged the error itself
    error.add_note(f"In another process:\n{result.trace}")
    raise error


def _by_its_name(work: Named) -> Named:
    """Of a program that was started as a module, `python -m package.app`: by that, for it may import its neighbours."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if work.module != "__main__" or spec is None or spec.name == "__main__":
        return work
    return msgspec.structs.replace(work, module=spec.name)


def _file_of(module: str) -> str:
    found = getattr(sys.modules.get(module), "__file__", None)
    return os.path.abspath(found) if found else ""


# ---------------------------------------------------------------- in the other process
def serve() -> None:
    """Carry out work, one after the other, until the process that sends it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the work prints must not come between
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as this process lives
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(orders, inbox), daemon=True).start()
    while True:
        reply = msgspec.msgpack.encode(_carry_out(inbox.get()))
        results.write(len(reply).to_bytes(_LENGTH, "big") + reply)
        results.flush()


def _listen(orders: BinaryIO, inbox: SimpleQueue[bytes]) -> None:
    """Take orders; with nobody there any more to want a result, end at once."""
    while len(head := orders.read(_LENGTH)) == _LENGTH:
        inbox.put(orders.read(int.from_bytes(head, "big")))
    os._exit(0)


def _carry_out(data: bytes) -> _Result:
    order = msgspec.msgpack.decode(data, type=_Order)
    again: Callable[[BaseException], bool] = _never
    try:
        found = _find(order.work, order.module_file)
        again = found.again
        return _Result(value=found.carry_out(order.work))
    except BaseException as error:
        trace = "".join(traceback.format_exception(error)).rstrip()
        return _Result(error=to_failure(error, again=again(error)), trace=trace)


def _never(error: BaseException) -> bool:
    return False


def _find(work: Named, file: str) -> Any:
    """What knows how to carry the work out: the definition of the step or actor of that name."""
    from ...authoring.flow import definition
    from ...authoring.step import make

    with _importing(file or work.module):
        found: Any = _module(work.module, file)
    for part in work.name.split("."):
        found = getattr(found, part)
    return definition(found) or make(found)


_imported = ""


@contextlib.contextmanager
def _importing(what: str) -> Generator[None]:
    global _imported
    _imported = what
    try:
        yield
    finally:
        _imported = ""


def check_is_no_import() -> None:
    """Raise `WrongPlace` where a program begins its work when it is imported: its steps' processes would begin it, too,
    and theirs again."""
    if _imported:
        raise WrongPlace(
            f"{_imported} opens an engine when it is imported, and a process that carries out its steps imports it; "
            'put what begins work under `if __name__ == "__main__":`'
        )


def _module(name: str, file: str) -> ModuleType:
    """The module of that name; a program that was started by its file is loaded from there, but not run."""
    known = sys.modules.get(f"__segue_main__{file}" if name == "__main__" else name)
    if known is not None:
        return known
    if name != "__main__":
        with contextlib.suppress(ModuleNotFoundError):
            module = importlib.import_module(name)
            if not file or getattr(module, "__file__", None) in (None, file) or _same(module, file):
                return module
    if not file:
        raise ModuleNotFoundError(f"no module named {name!r}, and no file of it", name=name)
    return _load(f"__segue_main__{file}" if name == "__main__" else name, file)


def _same(module: ModuleType, file: str) -> bool:
    found = module.__file__
    return found is not None and os.path.exists(file) and os.path.samefile(found, file)


def _load(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(file))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} isn't a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
