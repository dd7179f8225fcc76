"""Model calls that are sent at once, from this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial

from ...authoring.context import Branch, Need
from ...model.errors import MissingKey, ProviderFault
from ...ports.clock import AlarmClock
from ...ports.provider import CallFault, Endpoint, Provider
from ..ground.events import Token, Waiting
from .answer import reader
from .limits import Limit
from .sameness import Shared, asked_of
from .trying import Trouble, model_failed, retrying, until_answered

#: The call that is being carried out, named as its line in a batch would be.
CALLING: ContextVar[str] = ContextVar("segue_calling", default="")


class LiveCall:
    """A branch's call of a model, whoever sends it: tried until it is answered, and told of to who watches the run.

    `model` is the name that its tokens are counted under; `most` calls are under way at once at its endpoint.
    """

    def __init__(
        self,
        branch: Branch,
        model: str,
        limit: Limit,
        most: int,
        clock: AlarmClock,
        wants_events: Callable[[str], bool],
        need: Need | None,
    ) -> None:
        self.model, self.limit, self.need = model, limit, need
        self._run, self._place = branch.run, (branch.path, branch.n)
        self._most, self._clock, self._wants = most, clock, wants_events

    async def answer(self, send: Callable[[int], Awaitable[bytes]], size: int) -> bytes:
        """What `send` gives, which is told the number of its attempt, for a body of so many bytes.

        Raises `ModelFailed` for the last fault.
        """
        try:
            return await until_answered(
                self.limit,
                self._clock,
                send,
                most=self._most,
                tokens=size // 4,
                seed=f"{self._run.id}{self._place}",
                model=self.model,
                run=self._run.id,
                tell=self._trouble,
                waits=self._waits,
                spoil=None if self.need is None else self.need.spoil,
            )
        except CallFault as fault:
            failure = fault
        raise model_failed(self.model, failure.status, failure.message, failure.code)

    @property
    def watched(self) -> bool:
        """Whether somebody wants to see the answer come."""
        return self._wants(self._run.id)

    def tell(self, text: str, attempt: int = 1) -> None:
        """Show who watches a piece of the answer."""
        if text:
            path, n = self._place
            self._run.emit(Token(run=self._run.id, path=path, n=n, text=text, attempt=attempt))

    def _waits(self, what: str) -> None:
        path, n = self._place
        self._run.emit(Waiting(run=self._run.id, path=path, n=n, name=self.model, what=what))

    def _trouble(self, told: Trouble) -> None:
        self._run.emit(retrying(self._run.id, self._place, self.model, told))


class ProviderCall:
    """One that `generate` or `embed` makes, sent by a provider. `id` is what it would be called as a line; `lack` what
    the provider lacks to send it."""

    def __init__(
        self,
        live: LiveCall,
        id: str,
        provider: Provider,
        endpoint: Endpoint,
        to: str,
        body: Callable[[], bytes],
        lack: MissingKey | None = None,
    ) -> None:
        self._live, self._id, self._make_body, self._lack = live, id, body, lack
        self._provider, self._endpoint, self._to = provider, endpoint, to

    async def run(self) -> bytes:
        """Its answer."""
        CALLING.set(self._id)
        return await self._send(self._make_body())

    async def shared(self, shared: Shared) -> bytes:
        """As `run`, where the answer may be another call's: it comes whole then."""
        CALLING.set(self._id)
        body = self._make_body()
        asked = asked_of(self._provider, self._endpoint, self._to, body)
        answer, reused = await shared.answer(asked, partial(self._send, body))
        if reused and self._streams:
            self._live.tell(self._provider.chat_reply(answer).text)
        return answer

    async def _send(self, body: bytes) -> bytes:
        if self._lack is not None:
            raise self._lack
        return await self._live.answer(partial(self._try, body), len(body))

    async def _try(self, body: bytes, attempt: int) -> bytes:
        live = self._live
        tell = partial(live.tell, attempt=attempt) if self._streams else None
        answer = await self._provider.send(self._to, body, tell, live.limit.heard)
        try:
            reader(self._provider, self._to)(answer)
        except ProviderFault as fault:
            if live.need is not None and fault.status != 200:
                live.need.spoil()
            raise CallFault(fault.status, str(fault), again=True) from fault
        return answer

    @property
    def _streams(self) -> bool:
        return self._to == "chat" and self._live.watched
