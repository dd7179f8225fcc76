"""Ctrl-C: an actor is asked to end by it, each time more urgently."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, Final

from ..authoring.actor.interruption import Interrupt
from ..authoring.context import find_branch
from ..model.errors import WrongPlace
from .handles import Run

#: One Ctrl-C may arrive twice, at a process and at its group, within so many seconds.
ONE_STROKE: Final = 0.2
#: What counts as one. The last, where there is one: the terminal is closed.
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
CLOSED: Final = getattr(signal, "SIGHUP", None)


class Strokes:
    """How often Ctrl-C came."""

    def __init__(self) -> None:
        self._loop, self._more = asyncio.get_running_loop(), asyncio.Event()
        self.struck, self._last = 0, 0.0

    def strike(self) -> int:
        """It came; how often so far, 0 for an echo. Called between any two instructions."""
        now = time.monotonic()
        if now - self._last < ONE_STROKE:
            return 0
        self._last, self.struck = now, self.struck + 1
        self._loop.call_soon_threadsafe(self._more.set)
        return self.struck

    def is_set(self) -> bool:
        """Whether it came at all."""
        return self.struck > 0

    async def wait(self, number: int = 1) -> None:
        """Until it came so often."""
        while self.struck < number:
            self._more.clear()
            await self._more.wait()


Handler = Callable[[int, FrameType | None], Any] | int | None
#: What is done at one stroke more, given what would have been done without us.
Beyond = Callable[[int, FrameType | None, Handler], None]


@contextmanager
def strokes(most: int, beyond: Beyond, closed: Callable[[], object] | None = None) -> Generator[Strokes]:
    """Count Ctrl-C and SIGTERM; after so many, `beyond` is called in the handler. Then all is as it was.

    That the terminal is closed is one too, unless somebody handles or ignores it (`nohup`), but never a second one: the
    shell and the system both tell of it, and nobody is there who lost patience. `closed` is called first.
    """
    made = Strokes()
    before: dict[int, Handler] = {}

    def strike(number: int, frame: FrameType | None) -> None:
        if number == CLOSED:
            if closed is not None:
                closed()
            if made.struck:
                return
        if made.strike() > most:
            beyond(number, frame, before[number])

    # Not loop.add_signal_handler: code that blocks the loop must be left by a second stroke too.
    try:
        heeded = [*map(int, SIGNALS)]
        if CLOSED is not None and signal.getsignal(CLOSED) is signal.SIG_DFL:
            heeded.append(int(CLOSED))
        for number in heeded:
            before[number] = signal.getsignal(number)
            signal.signal(number, strike)
    except ValueError as error:
        raise WrongPlace(
            f"Ctrl-C reaches the main thread alone ({error}): use interruptible() there, or have what tells you "
            f"to end call `await run.interrupt(level)`"
        ) from None
    try:
        yield made
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def ask_to_end(run: Run[Any], came: Strokes, tell: Callable[[Interrupt], object] | None = None) -> None:
    """Ask an actor to end at each stroke; over after the last level."""
    for level in Interrupt:
        await came.wait(level)
        if tell is not None:
            tell(level)
        await run.interrupt(level)


@asynccontextmanager
async def interruptible(
    run: Run[Any], /, *, tell: Callable[[Interrupt], object] | None = None
) -> AsyncGenerator[None]:
    """Within this, Ctrl-C (SIGINT, and SIGTERM) asks an actor to end, each time more urgently.

    At the first one after the mail that came before, then after the handler at work, then at once; see `Interrupt`.
    One more is the program's own, as outside of it. A terminal that is closed counts as the first. `tell` is called
    with each level. Who waits for the run gets `RunInterrupted`. For the main thread: raises `WrongPlace` elsewhere, in
    the code of a run, and for a flow.
    """
    if find_branch() is not None:
        raise WrongPlace(
            f"interruptible() was called in the code of a run, which many processes may carry out: use it in the "
            f"program that waits for {run.id!r}, or call `await run.interrupt(level)`"
        )
    if (await run.head()).spec.kind == "flow":
        raise WrongPlace(
            f"run {run.id!r} is a flow, which isn't asked to end: leave interruptible() out, then Ctrl-C ends "
            f"`async with Engine()`, which parks it; or call `await run.cancel()`"
        )
    with strokes(len(Interrupt), _as_without) as came:
        asking = asyncio.ensure_future(ask_to_end(run, came, tell))
        try:
            yield
        finally:
            if not asking.done():
                asking.cancel()
            await asyncio.wait([asking])
    if not asking.cancelled():
        asking.result()


def _as_without(number: int, frame: FrameType | None, before: Handler) -> None:
    if callable(before):
        before(number, frame)
    elif before == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
