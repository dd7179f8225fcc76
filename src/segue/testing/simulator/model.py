"""The model behind the live routes and the batch lines: replies made here, or a real one upstream."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Protocol

import aiohttp
import msgspec

from segue.model.errors import InvalidValue

from . import completion
from .replies import Failure, Reply, Rule, Script, as_reply, default_rule

__all__ = ["ENDPOINTS", "RESPONSES", "Answer", "Backend", "Model", "Scripted", "Upstream"]

#: What can be asked, live and in batches.
ENDPOINTS = ("/v1/responses", "/v1/chat/completions", "/v1/embeddings")

RESPONSES = "/v1/responses"
_CHAT = "/v1/chat/completions"


class Answer(msgspec.Struct, frozen=True):
    """A status and a JSON body."""

    status: int
    body: dict[str, Any]
    retry_after: float | None = None

    @classmethod
    def failed(cls, failure: Failure) -> Answer:
        """The answer that tells of a failure."""
        return cls(failure.status, completion.error(failure), failure.retry_after)


class Backend(Protocol):
    """What answers chat requests. Raises `Failure` for every answer other than 200."""

    #: Whether lines of a batch are to be spread over its time, since answering takes none.
    instant: bool

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A whole completion."""
        ...

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The chunks of one, a chunk with the usage last where it is known."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Scripted:
    """Says what the script says, else the rule."""

    instant = True

    def __init__(
        self, script: Script, rule: Rule | None, *, clock: Callable[[], float], names: Iterator[str]
    ) -> None:
        self._script = script
        self._rule = rule or default_rule
        self._now = clock
        self._names = names

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = await self._reply(body)
        return completion.completion(
            body, reply, id=f"chatcmpl-{next(self._names)}", created=int(self._now())
        )

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        return _each(completion.chunks(await self.complete(body)))

    async def close(self) -> None:
        pass

    async def _reply(self, body: dict[str, Any]) -> Reply:
        scripted, reply = self._script.next(body)
        if not scripted:
            try:
                made = self._rule(body)
                reply = as_reply(await made if inspect.isawaitable(made) else made)
            except Failure:
                raise
            except Exception as problem:
                raise Failure(500, f"The simulator's rule raised {problem!r}") from problem
        if isinstance(reply, Failure):
            raise reply
        return reply


class Upstream:
    """Any server that speaks the same protocol; only chat requests go there."""

    instant = False

    def __init__(self, base_url: str, *, key: str | None = None) -> None:
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidValue("upstream", "an http or https URL, its /v1", "it is none", repr(base_url))
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        async with await self._post(body) as response:
            try:
                answer: dict[str, Any] = await response.json(content_type=None)
            except (ValueError, aiohttp.ClientError) as problem:
                raise Failure(502, f"The upstream's answer is not JSON: {problem!r}") from problem
        return answer

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        options = {**(body.get("stream_options") or {}), "include_usage": True}
        return _events(await self._post({**body, "stream": True, "stream_options": options}))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, body: dict[str, Any]) -> aiohttp.ClientResponse:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        try:
            response = await self._session.post(self._url, json=body)
        except aiohttp.ClientError as problem:
            raise Failure(502, f"The upstream {self._url!r} can't be reached: {problem!r}") from problem
        if response.status != 200:
            async with response:
                raise _told(response.status, await response.text())
        return response


class Model:
    """Checks a request as a provider does and has it answered."""

    def __init__(self, backend: Backend, models: Sequence[str] = ()) -> None:
        self.backend = backend
        self.models = tuple(models)

    def check(self, endpoint: str, body: Any) -> Failure | None:
        """What is wrong with a request, if anything."""
        if not isinstance(body, dict):
            return Failure(400, "The body must be a JSON object", code="invalid_json")
        needed = "messages" if endpoint == _CHAT else "input"
        for name in ("model", needed):
            if not body.get(name):
                message = f"Missing required parameter: {name!r}."
                return Failure(400, message, code="missing_required_parameter", param=name)
        if needed == "messages" and not _are_messages(body["messages"]):
            return Failure(400, "Invalid type for 'messages'.", code="invalid_type", param="messages")
        return self.check_model(body["model"])

    def check_model(self, name: str) -> Failure | None:
        """What is wrong with a model's name, if anything."""
        if self.models and name not in self.models:
            message = f"The model `{name}` does not exist or you do not have access to it."
            return Failure(404, message, code="model_not_found")
        return None

    async def answer(self, endpoint: str, body: Any) -> Answer:
        """Answer a request as a whole."""
        if (wrong := self.check(endpoint, body)) is not None:
            return Answer.failed(wrong)
        if endpoint != _CHAT:
            return Answer(200, completion.embeddings(body))
        try:
            return Answer(200, await self.backend.complete(body))
        except Failure as failure:
            return Answer.failed(failure)

    async def stream(self, body: Any) -> Answer | AsyncIterator[dict[str, Any]]:
        """Answer a chat request chunk by chunk; an `Answer` is one that failed."""
        if (wrong := self.check(_CHAT, body)) is not None:
            return Answer.failed(wrong)
        try:
            return await self.backend.stream(body)
        except Failure as failure:
            return Answer.failed(failure)


def names(seed: int, first: int) -> Iterator[str]:
    """Ids that don't repeat while `first` grows from one start to the next."""
    for number in itertools.count(first):
        yield hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()[:24]


def _told(status: int, text: str) -> Failure:
    """An upstream's error, in its own words."""
    try:
        told = msgspec.json.decode(text)["error"]
        return Failure(status, told["message"], code=told.get("code"), type=told.get("type") or "")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return Failure(status, text)


def _are_messages(messages: Any) -> bool:
    return isinstance(messages, list) and all(isinstance(message, dict) for message in messages)


async def _each(parts: Iterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for part in parts:
        yield part


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async with response:
        async for line in response.content:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield msgspec.json.decode(data)
