"""What a dialect has to tell the rest: one provider's words for one machinery."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

from aiohttp import web

from .batches import Batch, Checked, Row
from .model import Answer
from .replies import Failure

__all__ = ["Dialect", "ModelFault"]

ModelFault = Callable[[str], Failure | None]


class Dialect(Protocol):
    """One provider's protocol. Everything else is the same for all of them."""

    name: str
    batch_prefix: str  #: what the ids of its batches begin with
    validates: bool  #: whether a batch can fail before any work is done

    def routes(self) -> Iterable[web.RouteDef]:
        """What it answers."""
        ...

    def speaks(self, request: web.Request) -> bool:
        """Whether a request is one to this provider, answered or not; that is asked in a fixed order."""
        ...

    def asks_model(self, path: str) -> bool:
        """Whether a request there is a live call."""
        ...

    def key(self, request: web.Request) -> str:
        """The API key that came with a request."""
        ...

    def error(self, failure: Failure) -> Any:
        """The body that goes with a status other than 200."""
        ...

    def usage(self, body: dict[str, Any]) -> tuple[int, int]:
        """Tokens in and out, as an answer's body states them."""
        ...

    def read(self, batch: Batch, content: bytes, model_fault: ModelFault) -> Checked:
        """The lines of a batch's requests, and what is wrong with them."""
        ...

    async def work(self, endpoint: str, body: Any) -> Answer:
        """The answer to one line."""
        ...

    def row(self, batch: Batch, row: Row) -> tuple[Literal["output", "error"], dict[str, Any]]:
        """A line of a result file, and of which."""
        ...
