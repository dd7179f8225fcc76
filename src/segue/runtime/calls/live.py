"""A model call that is sent at once, from this process."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial

from ...authoring.context import Branch, Need
from ...model.errors import ProviderFault
from ...ports.clock import AlarmClock
from ...ports.provider import CallFault, Endpoint, Provider
from ..ground.events import Token
from .answer import reader
from .limits import Limit
from .naming import usage_name
from .sameness import Shared, asked_of
from .trying import Trouble, model_failed, retrying, until_answered

#: The call that is being carried out, named as its line in a batch would be.
CALLING: ContextVar[str] = ContextVar("segue_calling", default="")


class LiveCall:
    """It, of a branch, with all that it takes."""

    def __init__(
        self,
        branch: Branch,
        id: str,
        provider: Provider,
        endpoint: Endpoint,
        to: str,
        body: Callable[[], bytes],
        need: Need | None,
        limit: Limit,
        most: int,
        clock: AlarmClock,
        wants_events: Callable[[str], bool],
    ) -> None:
        self._run, self._place, self._id = branch.run, (branch.path, branch.n), id
        self._provider, self._endpoint, self._to, self._make_body = provider, endpoint, to, body
        self._need, self._limit, self._most = need, limit, most
        self._clock, self._wants = clock, wants_events
        self._name = usage_name(endpoint)

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
        if reused and self._streams():
            self._tell(self._provider.chat_reply(answer).text)
        return answer

    async def _send(self, body: bytes) -> bytes:
        try:
            return await until_answered(
                self._limit,
                self._clock,
                partial(self._try, body),
                most=self._most,
                tokens=len(body) // 4,
                seed=f"{self._run.id}{self._place}",
                model=self._name,
                run=self._run.id,
                tell=self._trouble,
                spoil=None if self._need is None else self._need.spoil,
            )
        except CallFault as fault:
            failure = fault
        raise model_failed(self._name, failure.status, failure.message, failure.code)

    async def _try(self, body: bytes, attempt: int) -> bytes:
        tell = partial(self._tell, attempt=attempt) if self._streams() else None
        answer = await self._provider.send(self._to, body, tell, self._limit.heard)
        try:
            reader(self._provider, self._to)(answer)
        except ProviderFault as fault:
            if self._need is not None and fault.status != 200:
                self._need.spoil()
            raise CallFault(fault.status, str(fault), again=True) from fault
        return answer

    def _streams(self) -> bool:
        """Whether somebody watches."""
        return self._to == "chat" and self._wants(self._run.id)

    def _tell(self, text: str, attempt: int = 1) -> None:
        path, n = self._place
        self._run.emit(Token(run=self._run.id, path=path, n=n, text=text, attempt=attempt))

    def _trouble(self, told: Trouble) -> None:
        self._run.emit(retrying(self._run.id, self._place, self._name, told))
