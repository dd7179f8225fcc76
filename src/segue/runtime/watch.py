"""A thread beside the loop: tells which code blocks the loop, and keeps leases while it does.

It asks the loop for a sign of life some times a second, while runs are at work; nothing else costs anything. Where
the sign is late, the loop's stack says who is at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import sysconfig
import threading
import time
from asyncio import AbstractEventLoop, Task
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec

from .calls.carrying import CARRY_OUT
from .ground.events import Blocked

if TYPE_CHECKING:
    from .wake.executor import Executor
    from .wake.resting import Resting

log = logging.getLogger("segue")

#: For so long code may keep the loop to itself, in seconds.
PATIENCE = 0.25
_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {"<frozen"}
)
_IMPORTS = "<frozen importlib"
_LOOP = (os.path.join("asyncio", "base_events.py"), os.path.join("asyncio", "runners.py"))


class Whereabouts(msgspec.Struct, frozen=True):
    """What the loop's thread is at. `run`, `target` and `step` are empty where it isn't a run's code, or no step's."""

    file: str
    line: int
    function: str
    run: str = ""
    target: str = ""
    step: str = ""
    imports: str = ""  #: the module that is being imported there
    inside: str = ""  #: where segue itself is at work for that line

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class Watch:
    """Watches one loop. `runs` gives the runs at work, `renew` is called every so often, both in this thread."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        runs: Callable[[], Collection[Executor | Resting]],
        tell: Callable[[Blocked], None],
        *,
        patience: float = PATIENCE,
        renew: Callable[[], None] | None = None,
        every: float = 15.0,
    ) -> None:
        self._loop, self._runs, self._tell, self._patience = loop, runs, tell, patience
        self._renew, self._every = renew, every
        self._loop_thread = threading.get_ident()
        self._told: set[tuple[str, str]] = set()
        self._stop = threading.Event()
        self._asked = self._answered = 0
        self._thread = threading.Thread(target=self._watch, name="segue-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    # ------------------------------------------------------------ in the thread
    def _watch(self) -> None:
        tick = self._patience / 2 if self._patience else self._every
        asked_at = renewed_at = time.monotonic()
        looked_at = 0
        callback: FrameType | None = None  # what the loop was at when last looked at
        while not self._stop.wait(tick) and not self._loop.is_closed():
            now = time.monotonic()
            if self._renew is not None and now - renewed_at >= self._every:
                renewed_at = now
                try:
                    self._renew()
                except Exception:  # there is time for more attempts
                    log.exception("claims can't be renewed while the event loop is blocked")
            if not self._patience:
                continue
            if self._asked == self._answered:
                if self._runs():
                    self._post(self._answer, self._ask())
                asked_at, callback = now, None
            elif looked_at != self._asked:
                before, callback = callback, self._callback()
                if now - asked_at >= self._patience and callback is not None and callback is before:
                    looked_at, callback = self._asked, None
                    self._look(now - asked_at)

    def _ask(self) -> int:
        self._asked += 1
        return self._asked

    def _post(self, call: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, argument)

    def _answer(self, number: int) -> None:
        self._answered = number

    def _callback(self) -> FrameType | None:
        """What the loop is at. Another one later: then many have their turns, and none of them keeps it."""
        frames = list(_outwards(sys._current_frames().get(self._loop_thread)))
        return frames[-1] if frames else None

    def _look(self, seconds: float) -> None:
        """Tell of the place that the loop is at, once."""
        at = self._whereabouts()
        if at is None or (at.file, at.function) in self._told:
            return
        self._told.add((at.file, at.function))
        log.log(
            logging.INFO if at.inside and at.imports else logging.WARNING,  # of that, nobody can do anything
            "%s has kept the event loop from everything else for %.2f s, at %s: %s. Said once",
            _who(at), seconds, at, _cure(at),
        )  # fmt: skip
        if at.inside and at.imports:
            return
        if at.run:
            event = Blocked(
                run=at.run, target=at.target, step=at.step, where=str(at), seconds=round(seconds, 3)
            )
            self._post(self._tell, event)

    def _whereabouts(self) -> Whereabouts | None:
        frame = sys._current_frames().get(self._loop_thread)
        frames = list(_outwards(frame))
        imports, caller = _import_of(frames)
        first = next((one for one in frames[caller:] if not _is_foreign(one)), None)
        if first is None:
            return None  # the engine itself, or a library on its own
        segues = next((one for one in frames[caller : frames.index(first)] if _is_own(one)), None)
        at = Whereabouts(
            first.f_code.co_filename,
            first.f_lineno,
            _name_of(first),
            imports=imports,
            inside="" if segues is None else f"{segues.f_code.co_filename}:{segues.f_lineno}",
        )
        task = asyncio.current_task(self._loop)
        run = None if task is None else self._run_of(task)
        if run is None:
            return at
        return msgspec.structs.replace(at, run=run.id, target=run.head.spec.target, step=_step_of(frames))

    def _run_of(self, task: Task[Any]) -> Executor | Resting | None:
        for run in list(self._runs()):
            carrying = getattr(run, "carrying", None)  # it may end meanwhile
            if task in run.tasks or (carrying is not None and task in carrying.at_work):
                return run
        return None


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of what the loop is at now, from the innermost; not of what runs the loop."""
    while frame is not None and not frame.f_code.co_filename.endswith(_LOOP):
        yield frame
        frame = frame.f_back


def _import_of(frames: list[FrameType]) -> tuple[str, int]:
    """The module that is being imported, and the number of the frame that wants it; without an import, "" and 0."""
    for number in reversed(range(len(frames))):
        frame = frames[number]
        if frame.f_code.co_filename.startswith(_IMPORTS):
            return str(frame.f_locals.get("name", "a module")), number + 1
    return "", 0


def _name_of(frame: FrameType) -> str:
    return str(getattr(frame.f_code, "co_qualname", frame.f_code.co_name))


def _who(at: Whereabouts) -> str:
    """Whom it is put down to."""
    if at.inside:
        return "segue itself"
    who = f"run {at.run} of {at.target}" if at.run else "code that is no run's"
    return f"{who}, step {at.step!r}," if at.step else who


def _cure(at: Whereabouts) -> str:
    if at.inside:
        what = (
            f"importing {at.imports}, once"
            if at.imports
            else "no fault of that line, unless it hands over much"
        )
        return f"it is at {at.inside}, {what}"
    if at.imports:
        return f"it imports {at.imports}: do that at the top of the file"
    way = "make it a plain `def`, which runs on a thread" if at.step else "do that in a step, a plain `def`"
    return f"{way}, or one with pool='process' where it computes"


def _is_own(frame: FrameType) -> bool:
    """Whether it is segue's."""
    return frame.f_code.co_filename.startswith(_OWN)


def _is_foreign(frame: FrameType) -> bool:
    """Whether it is segue's own, or a library's: then its caller is to blame."""
    return _is_own(frame) or frame.f_code.co_filename.startswith(_LIBRARIES)


def _step_of(frames: list[FrameType]) -> str:
    """The name of the step that is being carried out, if it is one."""
    for frame in frames:
        if frame.f_code in CARRY_OUT:
            work = frame.f_locals["work"]
            return str(work.name) if work.kind == "step" else ""
    return ""
