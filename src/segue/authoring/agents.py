"""What agents of other libraries do in a run, seen by their requests."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..providers.wire import Request
from .context import RunContext

log = logging.getLogger("segue")


class _Reply(NamedTuple):
    body: bytes
    handed: int


class Tools:
    """Looks for tools that an agent calls and nobody records: they run again at every wake."""

    _known: weakref.WeakKeyDictionary[RunContext, Tools] = weakref.WeakKeyDictionary()
    _told: set[str] = set()

    def __init__(self, run: RunContext) -> None:
        self._run = weakref.ref(run)
        self._replies: deque[_Reply] = deque(maxlen=32)

    @classmethod
    def of(cls, run: RunContext) -> Tools:
        """What is known of a run."""
        known = cls._known.get(run)
        if known is None:
            known = cls._known[run] = cls(run)
        return known

    def answered(self, body: bytes) -> None:
        """A model said this; what is recorded from here on may be its tools."""
        run = self._run()
        if run is not None:
            self._replies.append(_Reply(body, run.handed))

    def check(self, asked: Request) -> None:
        """Results of tools go to the model: something at least was recorded since it asked for them."""
        run = self._run()
        results = asked.dialect.turns(asked.asked)
        names = sorted({name for name in results.values() if name not in self._told and not _is_form(name)})
        if run is None or not names or _forced(asked.asked):
            return
        for reply in reversed(self._replies):
            if any(
                ident.encode() in reply.body or name.encode() in reply.body for ident, name in results.items()
            ):
                if run.handed == reply.handed:
                    self._tell(run, names)
                return

    def _tell(self, run: RunContext, names: list[str]) -> None:
        self._told.update(names)
        tools = ", ".join(map(repr, names))
        log.warning(
            "run %s: the agent called %s without a recorded call: a tool that isn't recorded runs again at every "
            "wake of the run. Make it a step: @segue.step above it, or tools=[segue.step(%s)]",
            run.id,
            tools,
            names[0],
        )


def _is_form(name: str) -> bool:
    """Whether a tool is pydantic-ai's form of an answer."""
    return name.startswith("final_result")


def _forced(asked: Mapping[str, Any]) -> bool:
    """Whether the model had to call that one tool: then it is the form of an answer, not a tool."""
    choice = asked.get("tool_choice")
    return isinstance(choice, dict) and choice.get("type") in ("function", "tool")
