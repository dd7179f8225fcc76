"""What one wake of a run needs of the engine around it."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...authoring.context import Services
from ...model.lane import Answer
from ...model.message import Mail, Question
from ...ports.clock import Timer
from ...ports.store import CommitResult, Landed, Turn
from ..calls.budgets import Budgets

if TYPE_CHECKING:
    from .executor import Executor
    from .resting import Rests


class Host(Services, Protocol):
    """The engine, as an executor sees it."""

    loop: AbstractEventLoop
    name: str  #: the worker's
    port: str  #: where answers come to callers of this process
    park_always: bool
    rests: Rests | None  #: where actors that only listen stay, if they may
    budgets: Budgets

    @property
    def is_roomy(self) -> bool:
        """Whether runs may stay in memory for a moment, for what may come."""
        ...

    watchers: Mapping[str, Any]  #: empty if nobody watches any run
    #: Requests of which it is told where their handler's calls stand.
    followed: Mapping[str, Callable[[str], None]]

    at_once: bool  #: whether what is appended is durable at once

    def commit(self, turn: Turn, then: Landed) -> CommitResult | None: ...
    def append(self, run: str, fence: int, entries: bytes, then: Landed) -> bool: ...
    def pump_soon(self, executor: Executor) -> None:
        """Have it `pump` in the next turn of the loop, together with others."""
        ...

    def clock_now(self) -> float: ...
    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer: ...
    def ended(self, run: Executor) -> None: ...
    def wants_events(self, run: str) -> bool: ...
    def answer(self, answers: Sequence[Mail], /) -> None:
        """Answers to callers of this process are durable, but for being answers: hand them over."""
        ...

    def asked(self, questions: Sequence[Question]) -> None: ...
    def kept(self, answers: Sequence[Answer]) -> None: ...

    async def look(self, executor: Executor) -> None:
        """Bring it the mail that came with its own commit."""
        ...

    def publish(self, run: str, event: object) -> None: ...
