"""Questions answered at the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from typing import Any

import msgspec

from ..model.errors import AskClosed
from ..runtime.engine import Engine
from ..runtime.handles import Ask
from .answers import Unfit, expects, read
from .screen import note

#: Seconds between looks whether a question was answered elsewhere.
LOOK = 1.0


class Typist:
    """Reads lines from standard input on a thread of its own, so that runs go on meanwhile."""

    def __init__(self) -> None:
        self._line: asyncio.Future[str] | None = None

    async def line(self) -> str:
        """The next line. Raises `EOFError` at the end of the input."""
        if self._line is None or self._line.done():
            self._line = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._read, args=(self._line,), daemon=True).start()
        line = await asyncio.shield(self._line)
        self._line = None
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def _read(self, future: asyncio.Future[str]) -> None:
        line = sys.stdin.readline()
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits
            future.get_loop().call_soon_threadsafe(_settle, future, line)


def _settle(future: asyncio.Future[str], line: str) -> None:
    if not future.done():
        future.set_result(line)


async def answer_at_prompt(engine: Engine, ask: Ask, typist: Typist) -> bool:
    """Put a question until it is answered, here or elsewhere; false at the end of the input."""
    note("")
    note(f"? {ask.question}" + (f"  (for {ask.to})" if ask.to else ""), strong=True)
    if ask.show is not None:
        note(as_text(ask.show), faint=True)
    while True:
        sys.stderr.write(f"  {expects(ask.schema)}> ")
        sys.stderr.flush()
        try:
            text = await _line_or_closed(engine, ask, typist)
            if text is None:
                note("\n  it was answered elsewhere")
                return True
            await ask.answer(read(text, ask.schema))
            return True
        except Unfit as error:
            note(f"  {error}")
        except AskClosed as error:
            note(f"  {error}")
            return True
        except EOFError:
            note("")  # the prompt's line ends here
            return False


async def _line_or_closed(engine: Engine, ask: Ask, typist: Typist) -> str | None:
    """What is typed; None if the question closes meanwhile."""
    typing = asyncio.ensure_future(typist.line())
    try:
        while True:
            await asyncio.wait({typing}, timeout=LOOK)
            if typing.done():
                return typing.result()
            found = await engine.store.get_ask(ask.id)
            if found is None or found[1] != "open":
                return None
    finally:
        typing.cancel()


def as_text(value: Any) -> str:
    """A JSON value to read: a text as it is, else indented."""
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
