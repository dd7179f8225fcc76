"""The provider contract: how a model is spoken to, live and in batch, as pure translation plus thin I/O."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

import msgspec

from ..model.chat import ChatReply, ChatRequest

#: The code of a `CallFault` or `LineResult` whose prompt is longer than the model reads, whatever the provider
#: calls it.
OVERFLOW = "context_length_exceeded"


class Endpoint(msgspec.Struct, frozen=True):
    """Where a model is. `credential` is the name of the key, never the key itself."""

    provider: str
    base_url: str
    model: str
    credential: str = ""


class RemoteJob(msgspec.Struct, frozen=True):
    """A provider's batch job as the provider tells of it.

    `over`: it will change no more. `nonce` is what we labelled it with. `files` hold outcomes.
    `rejected` is why it was refused as a whole, if it was; `bad_lines` the line numbers at fault, from 1, and
    `faults` what was said of each.
    `sure`: of a job that `find` gives, that it is ours; else that can be told once it is over and its results are read.
    """

    id: str
    status: str
    over: bool
    done: int = 0
    failed: int = 0
    total: int = 0
    nonce: str = ""
    file: str = ""
    files: tuple[str, ...] = ()
    rejected: str = ""
    bad_lines: tuple[int, ...] = ()
    faults: Mapping[int, str] = {}
    sure: bool = True


class LineResult(msgspec.Struct, frozen=True):
    """One line of an outcome file. `status` is HTTP's, 0 where there was none; `code` the provider's error code."""

    id: str
    status: int
    body: bytes
    code: str = ""


class Rates(msgspec.Struct, frozen=True):
    """What a provider says is left to us, of requests and of tokens, and in how many seconds it is all there again.

    None is what it doesn't say.
    """

    requests: int | None = None
    tokens: int | None = None
    requests_reset: float | None = None
    tokens_reset: float | None = None


class Provider(Protocol):
    """One provider's protocol, live. Made for one base URL and credential; `model` comes with each call."""

    name: str
    batches: bool  #: whether it has a batch API: it is a `BatchProvider` then
    max_bytes: int  #: of one request's body

    def chat_body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """The request body, as for a call that isn't streamed. Pure."""
        ...

    def chat_reply(self, body: bytes) -> ChatReply:
        """What a response body says. Pure. Raises `ProviderFault` for what isn't one."""
        ...

    def embed_body(self, texts: Sequence[str], model: str) -> dict[str, Any]:
        """The request body for embeddings. Pure."""
        ...

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        """Vectors in the order of the texts, and input tokens. Pure."""
        ...

    async def send(
        self,
        endpoint: str,
        body: bytes,
        on_text: Callable[[str], None] | None,
        on_rates: Callable[[Rates], None] | None = None,
    ) -> bytes:
        """A live call of `chat` or `embed`: the response body, put together if it was streamed.

        Streams and calls `on_text` for each piece if it is given; `on_rates` hears what the answer's headers say
        of rate limits, also where it is an error. No retries: raises `CallFault`.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class BatchProvider(Provider, Protocol):
    """A provider that takes calls in jobs, whose lines come back hours later."""

    max_lines: int  #: of one job
    at_once: int  #: how many jobs may be submitted, or looked at, side by side

    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        """Stream `(id, body)` lines into a job file; its id. Where jobs have no files, a word that says so."""
        ...

    async def submit(
        self, file: str, endpoint: str, nonce: str, lines: AsyncIterator[tuple[str, bytes]] | None = None
    ) -> RemoteJob:
        """Create the job, labelled with `nonce`. `lines` are for those whose jobs have no files."""
        ...

    async def find(
        self, nonce: str, file: str, since: float, *, lines: int = 0, others: Collection[str] = ()
    ) -> RemoteJob | None:
        """The job with that label or file, made since then: an orphan of a crash.

        `lines` is how many it has; `others` are ids of jobs that are known to be different ones.
        """
        ...

    async def poll(self, job: str) -> RemoteJob:
        """How it stands."""
        ...

    def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        """Stream the outcomes; a line that can't be read comes as a text that says what is wrong with it."""
        ...

    async def cancel(self, job: str) -> None:
        """Ask for its end."""
        ...


# What a provider may have besides is looked up by name: to ask whether it is of a protocol takes longer than to build a
# request.


@runtime_checkable
class Windowed(Protocol):
    """A provider with ways between live and batch: by the time in which they promise an answer, the soonest first."""

    windows: Mapping[timedelta, BatchProvider]


def windows_of(provider: Provider) -> Mapping[timedelta, BatchProvider]:
    """Its ways between live and batch; most have none."""
    found: Mapping[timedelta, BatchProvider] = getattr(provider, "windows", {})
    return found


class PartlyLive(Protocol):
    """A provider whose jobs don't take the requests of every endpoint."""

    live_only: Collection[str]  #: endpoints whose calls are sent at once in batch mode too


def live_only(provider: Provider) -> Collection[str]:
    """Endpoints whose calls it takes in no job."""
    found: Collection[str] = getattr(provider, "live_only", ())
    return found


class Numbering(Protocol):
    """A provider whose request bodies aren't the same where they ask the same."""

    def question(self, body: bytes) -> bytes:
        """What of a body is asked. Pure."""
        ...


def question_of(provider: Provider, body: bytes) -> bytes:
    """What of a request's body is asked: mostly all of it."""
    question: Callable[[bytes], bytes] | None = getattr(provider, "question", None)
    return body if question is None else question(body)


class CallFault(Exception):
    """A live call didn't work out. `status` is HTTP's, 0 for none; `again` whether to try once more.

    `after` is how long the provider asks to wait, in seconds. `message` never holds a secret. `code` is the
    provider's own, but for `OVERFLOW`.
    """

    def __init__(
        self, status: int, message: str, *, again: bool, after: float | None = None, code: str = ""
    ) -> None:
        self.status, self.message, self.again, self.after, self.code = status, message, again, after, code
        super().__init__(f"HTTP {status}: {message}" if status else message)


class PriceList(Protocol):
    """What tokens cost."""

    def usd(
        self,
        model: str,
        lane: str,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int,
        written_tokens: int = 0,
        calls: int = 1,
    ) -> float | None:
        """US dollars, or None where the price isn't known. Cached and written tokens are part of the input.

        The tokens are those of so many calls: some models cost more where a prompt is long.
        """
        ...


Environment = Mapping[str, str]
