"""An HTTP client for providers' SDKs, whose requests are recorded calls."""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import msgspec

from ..model.errors import (
    MissingExtra,
    ModelFailed,
    NotInRun,
    ProviderFault,
    SegueError,
    StreamCut,
    WrongPlace,
)
from ..providers.wire import Request, recognise
from ..transports.wrapped import Wrapped
from .agents import Tools
from .asked import arguments
from .config import config_of
from .context import BRANCH, KEY_HEADER, Answered, Branch, RunContext, WireCall, Work, find_branch
from .passing import Passing

if TYPE_CHECKING:
    import httpx2

    from ..ports.transport import Transport

C = TypeVar("C")
Outside = Literal["refuse", "live"]

#: Options of a client that make its own transport; they make the one that ours sends through.
_CONNECTION = ("verify", "cert", "http1", "http2", "limits", "proxy")
_SSE = "text/event-stream; charset=utf-8"


@overload
def http_client(
    *, outside: Outside = "refuse", key: str = "", transport: Any = None, **options: Any
) -> httpx2.AsyncClient: ...
@overload
def http_client(
    cls: type[C], /, *, outside: Outside = "refuse", key: str = "", transport: Any = None, **options: Any
) -> C: ...
def http_client(
    cls: Any = None, /, *, outside: Outside = "refuse", key: str = "", transport: Any = None, **options: Any
) -> Any:
    """A client for a provider's SDK, such as `AsyncOpenAI(http_client=segue.http_client())`.

    In a run, a request to a model is a recorded call: sent at once and streamed in live mode, a line of a batch
    job in batch mode; a replay sends nothing. Other requests are sent at once in every mode and recorded whole.
    Outside a run it raises `NotInRun`; with `outside="live"` it is a plain client there.

    `cls` is `httpx2.AsyncClient`, or `httpx.AsyncClient` for libraries still on it, or a class made of one.
    A `Client`, which is sync, is for SDKs in sync steps: a step is recorded whole, so it just sends, and raises
    `WrongPlace` in batch. `key` names the environment variable that holds the key of batch jobs; without it the
    provider's own is taken, or the one whose value the SDK uses. `transport`, and options such as `verify` and
    `proxy`, say how live requests are sent; other options are the class's own.
    """
    cls = cls or _default()
    library = _library_of(cls)
    if "mounts" in options:
        raise TypeError(
            "http_client() takes no mounts=: requests on them wouldn't be recorded; use transport="
        )
    is_async = issubclass(cls, library.AsyncClient)
    connection = {name: options.pop(name) for name in _CONNECTION if name in options}
    if transport is None and connection:
        transport = (library.AsyncHTTPTransport if is_async else library.HTTPTransport)(**connection)
    make = _transports(library)[0 if is_async else 1]
    return cls(transport=make(_Wiring(library, outside, key, transport)), **options)


def _default() -> Any:
    for name in ("httpx2", "httpx"):
        try:
            return __import__(name).AsyncClient
        except ImportError:
            continue
    raise MissingExtra("httpx2", "sdk")


def _library_of(cls: Any) -> Any:
    """The library that a client's class is made of."""
    for base in getattr(cls, "__mro__", ()):
        name = base.__module__.partition(".")[0]
        if name in ("httpx", "httpx2"):
            return sys.modules[name]
    raise TypeError(f"http_client() takes a client class of httpx2 or httpx, not {cls!r}")


class _Wiring:
    """What a client was made with."""

    def __init__(self, library: ModuleType, outside: Outside, key: str, inner: Any) -> None:
        self.library: Any = library
        self.outside, self.key, self.inner = outside, key, inner
        self._plain: weakref.WeakKeyDictionary[AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        self._sync: Any = None

    def transport(self) -> Transport | None:
        """The author's own for what is recorded, if there is one."""
        return None if self.inner is None else Wrapped(self.library, self.inner)

    def plain(self) -> Any:
        """What sends that which isn't recorded."""
        if self.inner is not None:
            return self.inner
        loop = asyncio.get_running_loop()
        if loop not in self._plain:
            self._plain[loop] = self.library.AsyncHTTPTransport()
        return self._plain[loop]

    def plain_sync(self) -> Any:
        """The same for a sync client."""
        if self.inner is None and self._sync is None:
            self._sync = self.library.HTTPTransport()
        return self.inner or self._sync

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        for transport in (self.inner, self._plain.pop(asyncio.get_running_loop(), None)):
            if transport is not None:
                await transport.aclose()

    def close(self) -> None:
        """Close the connections of a sync client."""
        for transport in (self.inner, self._sync):
            if transport is not None:
                transport.close()

    def refusal(self) -> SegueError | None:
        """Why a request that no run records isn't sent, if it isn't."""
        work = BRANCH.get()
        if isinstance(work, Work):
            caller = work.caller
            if caller is None or config_of(caller).pooled is None:
                return None
            return WrongPlace(
                f"a model was called in the step {work.name!r}, which is recorded whole and so can't wait for a "
                f"batch; make {work.name!r} a flow (@segue.flow), or run it with mode='live'"
            )
        if isinstance(work, str):
            return None
        return None if self.outside == "live" else NotInRun("http_client")

    def refuse(self, request: Any, error: SegueError) -> Any:
        """An error of ours: SDKs that would try again, and hide it, get it as an answer that says it is final."""
        if not any(name.startswith("x-stainless") for name in request.headers):
            raise error
        told = {"error": {"message": str(error), "type": type(error).__name__, "param": None, "code": None}}
        return self.response(request, 400, "application/json", msgspec.json.encode(told))

    def response(self, request: Any, status: int, media: str, content: bytes) -> Any:
        """A whole response. One that tells of an error was tried again as often as makes sense."""
        headers = {"content-type": media} | ({"x-should-retry": "false"} if status >= 400 else {})
        return self.library.Response(status, headers=headers, content=content, request=request)


@functools.cache
def _transports(library: Any) -> tuple[Any, Any]:
    """Transport classes for that library: async, and sync."""

    class Recorded(library.AsyncBaseTransport):  # type: ignore[misc]  # httpx2 or httpx, known when it is used
        def __init__(self, wiring: _Wiring) -> None:
            self._wiring = wiring

        async def handle_async_request(self, request: Any) -> Any:
            branch, wiring = find_branch(), self._wiring
            if branch is not None:
                return await _Exchange(wiring, branch, request).run()
            refusal = wiring.refusal()
            if refusal is not None:
                return wiring.refuse(request, refusal)
            return await wiring.plain().handle_async_request(request)

        async def aclose(self) -> None:
            await self._wiring.aclose()

    class Sent(library.BaseTransport):  # type: ignore[misc]  # as above
        def __init__(self, wiring: _Wiring) -> None:
            self._wiring = wiring

        def handle_request(self, request: Any) -> Any:
            wiring = self._wiring
            if find_branch() is not None:
                what = "a sync client blocks the event loop and can't be recorded"
                cure = "use the SDK's async client, or call it in a sync step"
                return wiring.refuse(request, WrongPlace(f"{what}; {cure}"))
            refusal = wiring.refusal()
            if refusal is not None:
                return wiring.refuse(request, refusal)
            return wiring.plain_sync().handle_request(request)

        def close(self) -> None:
            self._wiring.close()

    return Recorded, Sent


class _Exchange:
    """One request in a run, and its response."""

    def __init__(self, wiring: _Wiring, branch: Branch, request: Any) -> None:
        self._wiring, self._branch, self._raw = wiring, branch, request
        self._asked: Request | None = None

    async def run(self) -> Any:
        body: bytes = await self._raw.aread()
        branch, method, url = self._branch, self._raw.method, str(self._raw.url)
        asked = self._asked = recognise(method, url, body)
        if asked is not None:
            Tools.of(branch.run).check(asked)
        args, check = arguments(branch, method, url, body, self._raw.headers.get("content-type", ""), asked)
        headers = {name.lower(): value for name, value in self._raw.headers.items()}
        passing = Passing(branch.run) if asked is not None and asked.streams else None
        call = WireCall(
            method=method,
            url=url,
            body=body,
            headers=headers,
            request=asked,
            args=args,
            digest=check,
            transport=self._wiring.transport(),
            key=self._wiring.key,
            passing=passing,
            nth=branch.number(f"http:{check.hex()}") if KEY_HEADER in headers else 0,
        )
        try:
            work = branch.run.services.wire_call(branch, config_of(branch), call)
            if isinstance(work, Work) and passing is None:
                answered: Answered = await branch.run.perform(branch, work)
            else:
                future = branch.run.record(branch, work)
                if passing is not None:
                    passing.call = future
                    if isinstance(work, Work):
                        await passing.opened(future)
                    if passing.began:
                        return self._stream(passing)
                answered = await future
                if passing is not None and asked is not None:
                    passing.whole(asked.dialect.frames(msgspec.json.decode(answered.body), asked.asked))
                    return self._stream(passing)
        except StreamCut as error:
            assert passing is not None  # nothing else is cut
            passing.whole(frame.encode() for frame in error.frames)
            return self._stream(passing)
        except (ModelFailed, ProviderFault) as error:
            return self._failed(error)
        except SegueError as error:
            return self._wiring.refuse(self._raw, error)
        return self._whole(answered)

    def _whole(self, answered: Answered) -> Any:
        asked = self._asked
        if asked is None:
            return self._wiring.response(self._raw, answered.status, answered.media, answered.body)
        Tools.of(self._branch.run).answered(answered.body)
        return self._wiring.response(self._raw, 200, answered.media, answered.body)

    def _failed(self, error: ModelFailed | ProviderFault) -> Any:
        """The error as the provider tells it."""
        message, code = (error.message, error.code) if isinstance(error, ModelFailed) else (str(error), "")
        status = error.status if error.status >= 400 else 503
        if self._asked is not None:
            told = self._asked.dialect.failure(status, message, code)
        else:
            told = {"error": {"message": message, "type": "", "param": None, "code": None}}
        return self._wiring.response(self._raw, status, "application/json", msgspec.json.encode(told))

    def _stream(self, passing: Passing) -> Any:
        library, headers = self._wiring.library, {"content-type": _SSE}
        frames = _passed(library, self._raw, passing, self._branch.run)
        return library.Response(200, headers=headers, stream=_stream_of(library)(frames), request=self._raw)


async def _passed(library: Any, request: Any, passing: Passing, run: RunContext) -> AsyncIterator[bytes]:
    """A live answer as it comes."""
    try:
        async for frame in passing.frames():
            yield frame
    except ModelFailed as error:
        raise library.ReadError(error.message, request=request) from error
    if passing.call is not None:
        Tools.of(run).answered(passing.call.result().body)


@functools.cache
def _stream_of(library: Any) -> Any:
    """The class of a stream of that library."""

    class Stream(library.AsyncByteStream):  # type: ignore[misc]  # as above
        def __init__(self, frames: AsyncIterator[bytes]) -> None:
            self._frames = frames

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self._frames

    return Stream
