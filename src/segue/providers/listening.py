"""Reading a streamed answer to its end, in which the body of the same call without a stream is put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from ..ports.provider import CallFault
from ..ports.transport import Response
from .faults import event_fault, garbage
from .masking import Mask
from .speech import Events
from .speech import StreamError as Broken
from .wire.dialect import Listener, StreamError

#: For servers that don't end an answer that is over, in seconds.
_LINGER = 0.05


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
    fault: CallFault | None = None
    data: bytes | None = None
    try:
        lines = response.lines()
        async for data in _events(lines):
            _, text = listener.take(data)
            if text and on_text is not None:
                on_text(text)
            if listener.over and last:
                await _ended(lines)
                break
    except (Broken, StreamError) as error:
        fault = event_fault(error.body, mask)
    except (ValueError, KeyError, TypeError, AttributeError):
        fault = garbage("an event of the answer's stream can't be read", data or b"", mask)
    if fault is None and not listener.over:
        fault = CallFault(200, "the stream ended before the answer did", again=True, code="cut_off")
    if fault is not None:
        raise fault
    return listener.answer()


async def _events(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    events = Events()
    async for line in lines:
        if (data := events.line(line)) is not None:
            yield data
    if (data := events.end()) is not None:
        yield data


async def _ended(lines: AsyncIterator[bytes]) -> None:
    """Read what follows the last event: a connection whose answer wasn't read to its end can't be used again."""
    with contextlib.suppress(TimeoutError, CallFault):
        async with asyncio.timeout(_LINGER):
            async for _ in lines:
                pass
