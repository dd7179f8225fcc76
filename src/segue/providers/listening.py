"""Reading a streamed answer to its end, in which the body of the same call without a stream is put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from ..ports.provider import CallFault
from ..ports.transport import Response
from .faults import event_fault, garbage
from .masking import Mask
from .wire.dialect import Listener, StreamError
from .wire.events import Events

#: For servers that don't end an answer that is over, in seconds.
_LINGER = 0.05
_DONE = b"[DONE]"


async def heard(
    response: Response,
    listener: Listener,
    on_text: Callable[[str], None] | None,
    mask: Mask,
    *,
    last: bool = True,
) -> bytes:
    """The whole body; `on_text` hears each piece of its text.

    `last`: nothing that matters follows once the answer is over. Raises `CallFault`, also for a stream that ends
    before its answer does: SDKs take such a one for whole.
    """
    lost: CallFault | None = None
    try:
        async with contextlib.aclosing(taken(response, listener, mask, last=last)) as pieces:
            async for _, text in pieces:
                if text and on_text is not None:
                    on_text(text)
    except CallFault as fault:
        lost = fault
    check_whole(listener, lost)
    return listener.answer()


async def taken(
    response: Response, listener: Listener, mask: Mask, *, last: bool = False
) -> AsyncGenerator[tuple[list[bytes], str]]:
    """What the listener gives of each event; `last` as in `heard`. Raises `CallFault`."""
    events, lines = Events(), response.lines()
    seen, data, any_data = b"", b"", False
    fault: CallFault | None = None
    try:
        async for line in lines:
            if len(seen) < 4096:
                seen += line + b"\n"
            data = events.line(line) or b""
            if data == _DONE:
                await _drain(lines)
                break
            if data:
                any_data = True
                yield listener.take(data)
                if listener.over and last:
                    await _drain(lines)
                    break
        else:
            data = events.end() or b""
            if data and data != _DONE:
                any_data = True
                yield listener.take(data)
    except StreamError as error:
        fault = event_fault(error.body, mask)
    except (ValueError, KeyError, TypeError, AttributeError):
        fault = garbage("an event of the answer's stream can't be read", data, mask)
    if fault is None and not any_data:
        fault = garbage("a stream has no answer in it", seen, mask)
    if fault is not None:
        raise fault


def check_whole(listener: Listener, lost: CallFault | None) -> None:
    """Raise what went wrong with a stream. Nothing did where only the connection broke, after the last word."""
    if listener.over and (lost is None or lost.code == "lost"):
        return
    raise lost or CallFault(200, "the stream ended before the answer did", again=True, code="truncated")


async def _drain(lines: AsyncIterator[bytes]) -> None:
    """Read what follows the last event: a connection whose answer wasn't read to its end can't be used again."""
    with contextlib.suppress(TimeoutError, CallFault):
        async with asyncio.timeout(_LINGER):
            async for _ in lines:
                pass
