"""Those with a protocol of their own: where they are, and under which names the environment has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..ports.provider import Endpoint, Environment, Provider
from ..ports.transport import Transport


class Native(NamedTuple):
    """See `Compatible`; `speaks` makes the provider, of base URL, key, transport and name."""

    base_url: str
    url_variable: str
    key_variable: str
    speaks: Callable[[str, str, Transport, str], Provider]
    path: str = "/v1"
    needs_key: bool = True

    def make(self, endpoint: Endpoint, environment: Environment, transport: Transport) -> Provider:
        """Who speaks for it."""
        key = environment.get(endpoint.credential, "") if endpoint.credential else ""
        return self.speaks(endpoint.base_url, key, transport, endpoint.provider)


def _anthropic(base_url: str, key: str, transport: Transport, name: str) -> Provider:
    from .anthropic import Anthropic

    return Anthropic(base_url, key, transport, name)


def _gemini(base_url: str, key: str, transport: Transport, name: str) -> Provider:
    from .gemini import Gemini

    return Gemini(base_url, key, transport, name)


NATIVE: dict[str, Native] = {
    "anthropic": Native(
        "https://api.anthropic.com/v1", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", _anthropic
    ),
    "gemini": Native(
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_BASE_URL",
        "GEMINI_API_KEY",
        _gemini,
        path="/v1beta",
    ),
}
