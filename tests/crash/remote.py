"""A provider without network that keeps account, a clock that runs fast, and a death that strikes at a call."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from segue.model.chat import ChatReply, ChatRequest
from segue.model.errors import StoreError
from segue.ports.clock import Timer
from segue.ports.provider import CallFault, LineResult, RemoteJob
from segue.ports.store import Store
from segue.providers import completions


class FastClock:
    """Time that passes faster, and can be moved."""

    def __init__(self, speed: float = 100.0) -> None:
        self._speed, self._began, self.moved = speed, time.monotonic(), 1_800_000_000.0

    def now(self) -> float:
        return self.moved + (time.monotonic() - self._began) * self._speed

    def steady(self) -> float:
        return self.now()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds / self._speed, callback)


class Remote:
    """What the provider knows and was paid, whoever asks. `lag`: how long a new job isn't listed."""

    def __init__(self, clock: FastClock, lag: float = 0.0) -> None:
        self.clock, self.lag = clock, lag
        self.files: dict[str, list[tuple[str, bytes]]] = {}
        self.jobs: dict[str, tuple[RemoteJob, float]] = {}
        self.paid: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()


def answer(body: bytes) -> bytes:
    """A chat completion that repeats what was asked."""
    asked = json.loads(body)["messages"][-1]["content"]
    message = {"role": "assistant", "content": f"heard {asked}"}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    ).encode()


class Far:
    """The protocol of such a provider, as one process speaks it."""

    name = "far"
    batches = True
    max_lines = 50_000
    at_once = 1
    max_bytes = 10_000_000

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    def chat_body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        return completions.chat_body(request, model, limit="max_tokens")

    def chat_reply(self, body: bytes) -> ChatReply:
        return completions.chat_reply(body)

    def embed_body(self, texts: Sequence[str], model: str) -> dict[str, Any]:
        raise NotImplementedError

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        raise NotImplementedError

    async def send(
        self, endpoint: str, body: bytes, on_text: Callable[[str], None] | None, on_rates: Any = None
    ) -> bytes:
        return answer(body)

    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        file = f"file-{len(self.remote.files)}"
        self.remote.files[file] = [line async for line in lines]
        return file

    async def submit(self, file: str, endpoint: str, nonce: str, lines: Any = None) -> RemoteJob:
        self.remote.paid.update(ident for ident, _ in self.remote.files[file])
        job = RemoteJob(f"job-{len(self.remote.jobs)}", "validating", False, nonce=nonce, file=file)
        self.remote.jobs[job.id] = job, self.remote.clock.now()
        return job

    async def find(self, nonce: str, file: str, since: float, **known: Any) -> RemoteJob | None:
        for job, made in self.remote.jobs.values():
            listed = self.remote.clock.now() - made >= self.remote.lag
            if listed and (job.nonce == nonce or (file and job.file == file)):
                return job
        return None

    async def poll(self, job: str) -> RemoteJob:
        known, _ = self.remote.jobs[job]
        lines = len(self.remote.files[known.file])
        return RemoteJob(
            job, "completed", True, lines, 0, lines, known.nonce, known.file, (f"out-{known.file}",)
        )

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        for ident, body in reversed(self.remote.files[job.file]):
            yield LineResult(ident, 200, answer(body))

    async def cancel(self, job: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class Death:
    """Strikes at a call, by number: before it is made, or after it was and before its caller hears of it.

    With `name`, calls of that name alone are counted: how many others there are may be up to the machine.
    """

    def __init__(self, at: int, after: bool, name: str = "") -> None:
        self.at, self.after, self.name = at, after, name
        self.count = 0
        self.struck = asyncio.Event()
        self.where = ""

    async def call(self, name: str, doing: Callable[[], Awaitable[Any]], failure: Exception) -> Any:
        if self.struck.is_set():
            raise failure
        counts = self.name in ("", name)
        self.count += counts
        due = counts and self.count == self.at
        if due and not self.after:
            self._strike(name)
            raise failure
        result = await doing()
        if due:
            self._strike(name)
            raise failure
        return result

    def _strike(self, name: str) -> None:
        self.where = f"{'after' if self.after else 'before'} {name}"
        self.struck.set()


class MortalStore:
    """A store as seen by a process that dies."""

    WATCHED: tuple[str, ...] = ("claim_lane", "take", "put_batch_job", "outcomes", "job_lines", "job_bodies")

    def __init__(self, inner: Store, death: Death) -> None:
        self.inner, self.death = inner, death

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        gone = StoreError("test", "this process is dead", "start another")
        if name in self.WATCHED:

            async def watched(*args: Any, **kwargs: Any) -> Any:
                return await self.death.call(name, lambda: found(*args, **kwargs), gone)

            return watched
        if name in ("address", "subscribe", "commit"):
            if name == "commit" and self.death.struck.is_set():

                def lost(turns: Any) -> asyncio.Future[Any]:
                    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                    future.set_exception(gone)
                    return future

                return lost
            return found

        if name == "append" and self.death.struck.is_set():

            def lost_row(run: str, fence: int, entries: bytes, then: Any) -> bool:
                asyncio.get_running_loop().call_soon(then, gone)
                return False

            return lost_row
        if not inspect.iscoroutinefunction(found):
            return found

        async def alive(*args: Any, **kwargs: Any) -> Any:
            if self.death.struck.is_set():
                raise gone
            return await found(*args, **kwargs)

        return alive

    async def open(self) -> None:
        """The store outlives its processes."""

    async def close(self) -> None:
        """The store outlives its processes."""


class MortalFar(Far):
    """A provider as spoken to by a process that dies."""

    def __init__(self, remote: Remote, death: Death) -> None:
        super().__init__(remote)
        self.death = death

    async def _call(self, name: str, doing: Callable[[], Awaitable[Any]]) -> Any:
        gone = CallFault(0, "this process is dead", again=True)
        self.remote.calls[name] += 1
        return await self.death.call(name, doing, gone)

    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        file: str = await self._call("upload", lambda: Far.upload(self, lines, endpoint, nonce))
        return file

    async def submit(self, file: str, endpoint: str, nonce: str, lines: Any = None) -> RemoteJob:
        job: RemoteJob = await self._call("submit", lambda: Far.submit(self, file, endpoint, nonce))
        return job

    async def find(self, nonce: str, file: str, since: float, **known: Any) -> RemoteJob | None:
        job: RemoteJob | None = await self._call("find", lambda: Far.find(self, nonce, file, since))
        return job

    async def poll(self, job: str) -> RemoteJob:
        known: RemoteJob = await self._call("poll", lambda: Far.poll(self, job))
        return known

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        async for result in Far.results(self, job):

            async def read(result: LineResult | str = result) -> LineResult | str:
                return result

            yield await self._call("results", read)
