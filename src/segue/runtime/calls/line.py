"""A model call that goes out as a line of a batch job."""

from __future__ import annotations

from collections.abc import Callable

from ...model.lane import Line
from ...model.run import CallRef
from ...ports.clock import Clock
from ...ports.store import Turn, adding
from .naming import line_id
from .ways import Route


class LineCall:
    """What turns are told of it."""

    def __init__(
        self,
        call: CallRef,
        route: Route,
        body: Callable[[], bytes],
        clock: Clock,
        since: float | None,
        ask: Callable[[bytes], str],
    ) -> None:
        self.id = line_id(call.run, (call.path, call.n))  #: what it is called
        self._call, self._route = call, route
        self._body, self._clock, self._since, self._ask = body, clock, since, ask

    def opens(self, turn: Turn) -> None:
        """See `Wait`."""
        body, route, since = self._body(), self._route, self._since
        line = Line(
            id=self.id,
            lane=route.lane,
            call=self._call,
            body=body,
            size=len(body),
            created=self._clock.now(),
            due=route.due,
            late=route.late,
            same="" if since is None else self._ask(body),
            since=since or 0.0,
        )
        turn.lines = adding(turn.lines, line)

    def drops(self, turn: Turn) -> None:
        """See `Wait`."""
        turn.withdrawn = adding(turn.withdrawn, self.id)
