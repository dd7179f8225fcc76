"""The resources of one process: each opened when it is first asked for, and closed with the worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ..authoring.failures import own_error

log = logging.getLogger("segue")


class Resources:
    """What `@segue.resource` functions gave, by function."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._made: dict[Any, asyncio.Task[Any]] = {}
        self._closers: list[Any] = []

    async def get(self, fn: Callable[[], Any]) -> Any:
        """The one that a function gives. One that fails to open is tried anew by whoever asks next."""
        made = self._made.get(fn)
        if made is None:

            async def open_it() -> Any:
                source = fn()
                try:
                    value = await anext(source)
                except BaseException as error:
                    raise own_error(error) from error.__cause__
                self._closers.append(source)
                return value

            made = self._made[fn] = asyncio.Task(open_it(), loop=self._loop)
        try:
            return await asyncio.shield(made)
        except Exception:
            if self._made.get(fn) is made:  # not one that somebody else is opening by now
                del self._made[fn]
            raise

    async def close(self) -> None:
        """Close them, the last one first."""
        opening = [made for made in self._made.values() if not made.done()]
        for made in opening:
            made.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for source in reversed(self._closers):
            await _close(source)


async def _close(source: Any) -> None:
    """Let a resource's function go on after its `yield`."""
    try:
        await anext(source)
    except StopAsyncIteration:
        return
    except BaseException as error:
        own_error(error)
        log.exception("the resource %s failed to close", source.__qualname__)
        return
    log.error("the resource %s yields more than once; only the first value is used", source.__qualname__)
    await source.aclose()
