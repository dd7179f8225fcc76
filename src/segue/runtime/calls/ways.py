"""The ways that a pooled model call may go: a provider's batch, one with a shorter window, or live."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import msgspec

from ...core import deadlines
from ...core.deadlines import Way
from ...model.lane import LIVE
from ...model.mode import Batch, Config, Late
from ...ports.provider import Endpoint, Provider, windows_of
from .naming import lane_key, lane_name, usage_name

log = logging.getLogger("segue")

#: Only of less time than this, in seconds, it is looked whether a live call would already have to begin.
SHORT = 3600.0
#: What a provider's batch promises.
DAY = timedelta(hours=24)


class Route(msgspec.Struct, frozen=True):
    """The lane that a call goes into, and by when it is to be answered."""

    lane: str
    name: str  #: as receipts have it
    due: float
    late: Late
    ways: list[str]  #: that it may go, as receipts have them


class Ways:
    """The ways of all endpoints, and how long each took."""

    def __init__(self, provider: Callable[[Endpoint], Provider]) -> None:
        self._provider = provider
        self.policies: dict[str, Batch] = {}  #: by lane, how those want its jobs who put lines into it
        self.took: dict[
            str, list[float]
        ] = {}  #: by lane, how long its jobs took in seconds; with `|live`, live rounds
        self._warned: set[str] = set()  # lanes whose lines are late at once

    def of(self, endpoint: Endpoint, to: str) -> dict[Way, str]:
        """The ways below a live call, the cheapest first, with what they add to a lane's endpoint."""
        provider = self._provider(endpoint)
        added = {"": DAY.total_seconds()}
        if to == "chat":
            windows = sorted((window.total_seconds() for window in windows_of(provider)), reverse=True)
            added |= {f"~{int(window)}": window for window in windows}
        found: dict[Way, str] = {}
        for more, promised in added.items():
            took = tuple(self.took.get(lane_key(endpoint, to + more), ()))
            found[Way(lane_name(to + more), promised, took)] = more
        return found

    def lead(self, endpoint: Endpoint, to: str) -> float:
        """Seconds that a live call needs before its deadline."""
        return deadlines.lead(self.took.get(f"{lane_key(endpoint, to)}|{LIVE}", ()), 1)

    def route(self, endpoint: Endpoint, to: str, config: Config, now: float) -> Route:
        """How a call that is made now goes."""
        mode = config.pooled or Batch()
        due, late = config.due_at(now)
        if config.deadline is None:
            way: str | None = _window(self._provider(endpoint), mode, to)
        else:
            way = self._in_time(endpoint, to, due - now, late)
        at_once = way is None
        if way is None:  # only a live call is in time: it goes as soon as it is in its lane
            way, due = "", now
        lane, name = lane_key(endpoint, to + way), lane_name(to + way)
        self.policies[lane] = mode
        if due and due - now < SHORT:
            self._warn_late(lane, endpoint, to, due - now, late)
        ways = [] if at_once else [name]
        if late == "live":  # it may go both
            ways.append(LIVE)
        return Route(lane, name, due, late, ways)

    def _in_time(self, endpoint: Endpoint, to: str, left: float, late: Late) -> str | None:
        """What is added to a lane's endpoint for the cheapest way that is in time; None for live."""
        ways = self.of(endpoint, to)
        found = deadlines.choose(list(ways), left, 0.0 if late == "fail" else self.lead(endpoint, to))
        if found is None and late == "fail":
            found = min(ways, key=lambda way: way.expected)
        return None if found is None else ways[found]

    def _warn_late(self, lane: str, endpoint: Endpoint, to: str, left: float, late: Late) -> None:
        """Say once a lane that its lines are late as they are made: each goes live, at the full price."""
        lead = self.lead(endpoint, to)
        if late != "live" or not 0 < left < lead or lane in self._warned:
            return
        self._warned.add(lane)
        log.warning(
            "model %r: all its calls go live: what isn't there %.0f s before its time is sent live, and they have "
            "%.0f s. Give a batch longer",
            usage_name(endpoint), lead, left,
        )  # fmt: skip


def _window(provider: Provider, mode: Batch, to: str) -> str:
    """What is added to a lane's endpoint: the slowest way that is in time, where that isn't a batch."""
    windows = () if to != "chat" or mode.within >= DAY else windows_of(provider)
    if not windows:
        return ""
    in_time = [window for window in windows if window <= mode.within]
    window = max(in_time) if in_time else min(windows)
    return f"~{int(window.total_seconds())}"
