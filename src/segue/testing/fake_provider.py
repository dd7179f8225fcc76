"""A provider in memory: a `FakeModel`'s live calls and batch jobs, without network or waiting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from ..model.chat import ChatReply, ChatRequest, Tokens
from ..model.errors import UNREADABLE, ProviderFault
from ..ports.provider import CallFault, LineResult, Rates, RemoteJob

_reply = msgspec.json.Decoder(ChatReply).decode


class Body(msgspec.Struct, frozen=True):
    """A request body of the fake provider: for chat, or for embeddings."""

    model: str
    number: int = 0  #: in the order made, in which a batch is answered too
    request: ChatRequest | None = None
    texts: list[str] = []


class Vectors(msgspec.Struct, frozen=True):
    """A response body for embeddings."""

    vectors: list[list[float]]
    tokens: int


_body = msgspec.json.Decoder(Body).decode
_vectors = msgspec.json.Decoder(Vectors).decode


class Mind(Protocol):
    """Who thinks of the replies."""

    def think(self, provider: str, call: str, body: Body) -> ChatReply:
        """The reply to a call, which `call` names in every life of its run. Raises `CallFault`."""
        ...

    def embed(self, provider: str, call: str, body: Body) -> list[list[float]]:
        """Vectors. Raises `CallFault`."""
        ...


class Job(msgspec.Struct):
    """A batch job at the fake provider."""

    id: str
    file: str
    nonce: str
    to: str
    cancelled: bool = False


class Remote:
    """What the provider knows, whatever becomes of its callers: files, jobs, and who sent what how often."""

    def __init__(self) -> None:
        self.made = 0
        self.files: dict[str, list[tuple[str, bytes]]] = {}
        self.jobs: dict[str, Job] = {}
        self.sent: Counter[str] = Counter()  # by id of line
        self.excused: Counter[str] = Counter()  # times that a line came back to be sent again
        self.outcomes: dict[tuple[str, str], LineResult] = {}


class FakeProvider:
    """One fake model's protocol: requests and replies as segue's own values in JSON."""

    batches = True
    max_lines = 50_000
    at_once = 1
    max_bytes = 200_000_000

    def __init__(self, name: str, mind: Mind, remote: Remote, place: Callable[[], str]) -> None:
        self.name, self._mind, self._remote, self._place = name, mind, remote, place

    def chat_body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """The request as it is, and the model."""
        self._remote.made += 1
        return {"model": model, "number": self._remote.made, "request": msgspec.to_builtins(request)}

    def chat_reply(self, body: bytes) -> ChatReply:
        """The reply as it is."""
        try:
            return _reply(body)
        except msgspec.MsgspecError as error:
            raise ProviderFault(self.name, f"no reply of a fake model ({error})", repr(body)) from None

    def question(self, body: bytes) -> bytes:
        """The body without its number."""
        return msgspec.json.encode(msgspec.structs.replace(_body(body), number=0))

    def embed_body(self, texts: Sequence[str], model: str) -> dict[str, Any]:
        """The texts as they are, and the model."""
        return {"model": model, "texts": list(texts)}

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        """The vectors as they are."""
        try:
            found = _vectors(body)
        except msgspec.MsgspecError as error:
            raise ProviderFault(self.name, f"no vectors of a fake model ({error})", repr(body)) from None
        return found.vectors, found.tokens

    async def send(
        self,
        endpoint: str,
        body: bytes,
        on_text: Callable[[str], None] | None,
        on_rates: Callable[[Rates], None] | None = None,
    ) -> bytes:
        """The reply, at once; streamed word by word."""
        answer = self._answer(endpoint, self._place(), body)
        if on_text is not None and endpoint == "chat":
            for piece in re.findall(r"\S+\s*|\s+", _reply(answer).text):
                on_text(piece)
        return answer

    def _answer(self, endpoint: str, call: str, data: bytes) -> bytes:
        body = _body(data)
        if endpoint == "chat":
            return msgspec.json.encode(self._mind.think(self.name, call, body))
        vectors = self._mind.embed(self.name, call, body)
        return msgspec.json.encode(Vectors(vectors, sum(map(words, body.texts))))

    # ------------------------------------------------------------ batches
    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        """Keep the lines."""
        file = f"file-{len(self._remote.files)}"
        self._remote.files[file] = [line async for line in lines]
        return file

    async def submit(
        self, file: str, endpoint: str, nonce: str, lines: AsyncIterator[tuple[str, bytes]] | None = None
    ) -> RemoteJob:
        """A job that is done at once."""
        remote = self._remote
        try:
            sent = sorted(remote.files[file], key=lambda line: _body(line[1]).number)
        except UNREADABLE as problem:
            raise CallFault(400, f"a request can't be read: {problem}", again=False) from None
        job = Job(f"batch-{len(remote.jobs)}", file, nonce, endpoint)
        remote.jobs[job.id] = job
        for ident, body in sent:
            remote.sent[ident] += 1
            remote.outcomes[job.id, ident] = self._line(ident, endpoint, body)
        return self._shown(job)

    def _line(self, ident: str, endpoint: str, body: bytes) -> LineResult:
        try:
            return LineResult(ident, 200, self._answer(endpoint, ident, body))
        except CallFault as fault:
            if fault.again:
                self._remote.excused[ident] += 1
            return LineResult(ident, fault.status, fault.message.encode(), fault.code)

    async def find(
        self, nonce: str, file: str, since: float, *, lines: int = 0, others: Collection[str] = ()
    ) -> RemoteJob | None:
        """By label or file."""
        for job in self._remote.jobs.values():
            if job.nonce == nonce or (file and job.file == file):
                return self._shown(job)
        return None

    async def poll(self, job: str) -> RemoteJob:
        """Done."""
        return self._shown(self._remote.jobs[job])

    async def _results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        for ident, _ in reversed(self._remote.files[job.file]):  # in no order that one could rely on
            yield self._remote.outcomes[job.id, ident]

    def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        """Every line's outcome, the last first."""
        return self._results(job)

    async def cancel(self, job: str) -> None:
        """It is done already."""
        self._remote.jobs[job].cancelled = True

    async def close(self) -> None:
        """Nothing is held."""

    def _shown(self, job: Job) -> RemoteJob:
        total = len(self._remote.files[job.file])
        return RemoteJob(
            job.id,
            "completed",
            True,
            done=total,
            total=total,
            nonce=job.nonce,
            file=job.file,
            files=(job.file,),
        )


def words(text: str) -> int:
    """A fake model's tokens."""
    return len(text.split())


def vector(text: str) -> list[float]:
    """Eight numbers that belong to a text."""
    drawn = blake2b(text.encode(), digest_size=8).digest()
    return [byte / 127.5 - 1 for byte in drawn]


def tokens(request: ChatRequest, texts: Sequence[str], answer: str) -> Tokens:
    """What a call counts."""
    return Tokens(sum(map(words, texts)), words(answer))
