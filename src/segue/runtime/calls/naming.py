"""What lanes, lines and models are called."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b

from ...core.replay import Place
from ...ports.provider import Endpoint


def lane_key(endpoint: Endpoint, to: str) -> str:
    """Requests of one provider, base URL, endpoint, model and credential share a lane."""
    return "|".join((endpoint.provider, endpoint.base_url, to, endpoint.model, endpoint.credential))


def lane_endpoint(lane: str) -> tuple[Endpoint, str]:
    """What a lane's key says."""
    provider, base_url, to, model, credential = lane.split("|")
    return Endpoint(provider, base_url, model, credential), to


@lru_cache(256)
def in_window(to: str) -> tuple[str, timedelta | None]:
    """A lane's endpoint without its window, and the window."""
    endpoint, _, seconds = to.partition("~")
    return endpoint, timedelta(seconds=int(seconds)) if seconds else None


def base_lane(lane: str) -> str:
    """A lane's key without its window."""
    endpoint, to = lane_endpoint(lane)
    return lane_key(endpoint, in_window(to)[0])


def lane_name(to: str) -> str:
    """The lane as receipts have it: `batch`, or a window such as `2h`."""
    _, window = in_window(to)
    return "batch" if window is None else f"{window.total_seconds() / 3600:g}h"


def line_id(run: str, opened: Place) -> str:
    """32 hex digits: the same in every life, and fit for every provider's rules."""
    path, n = opened
    return blake2b(f"{run}\0{path}\0{n}".encode(), digest_size=16).hexdigest()


def usage_name(endpoint: Endpoint) -> str:
    """The name under which a model's tokens are counted."""
    return f"{endpoint.provider}:{endpoint.model}"
