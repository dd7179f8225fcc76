"""From a model's name, such as `openai:gpt-5-mini`, to who speaks for it."""

from __future__ import annotations

import difflib
import urllib.parse
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..model.errors import InvalidValue, MissingKey, UnknownName
from ..ports.provider import Endpoint, Environment, Provider
from ..ports.transport import Transport
from .openai import OpenAI

Maker = Callable[[Endpoint, Environment, Transport], Provider]


class _Known(NamedTuple):
    """A provider that speaks OpenAI's protocol: where it is, and under which names the environment has it."""

    base_url: str
    url_variable: str
    key_variable: str
    batches: bool


_KNOWN = {
    "llamacpp": _Known("http://127.0.0.1:8080/v1", "LLAMACPP_BASE_URL", "LLAMACPP_API_KEY", False),
    "ollama": _Known("http://localhost:11434/v1", "OLLAMA_BASE_URL", "OLLAMA_API_KEY", False),
    "openai": _Known("https://api.openai.com/v1", "OPENAI_BASE_URL", "OPENAI_API_KEY", True),
    "vllm": _Known("http://127.0.0.1:8000/v1", "VLLM_BASE_URL", "VLLM_API_KEY", False),
}
_OPENAI_HEADERS = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


def resolve(name: str, environment: Environment, *, makers: Mapping[str, Maker] | None = None) -> Endpoint:
    """Where a model is: `PROVIDER:MODEL`, `PROVIDER:MODEL@URL` or `PROVIDER:MODEL@URL#VARIABLE`.

    The variable names the key for that URL. Without one, a provider's own key goes to its own place only, never
    to a URL in a name: `openai:…@http://…` calls without a key. `makers` are providers of your own, by name.
    Raises `UnknownName`, `InvalidValue`, and `MissingKey` where a call would fail for want of a key.
    """
    provider, colon, rest = name.partition(":")
    if not colon:
        raise UnknownName("model", name, _cure(name, makers, prefix=True))
    if provider not in {*_KNOWN, *(makers or {})}:
        raise UnknownName("provider", provider, _cure(provider, makers))
    model, url, variable = _taken_apart(rest)
    if not model:
        raise InvalidValue("model", f"a name such as '{provider}:MODEL'", "the model isn't named", repr(name))
    if provider in (makers or {}):
        return Endpoint(provider, url, model, variable)
    known = _KNOWN[provider]
    set_url = environment.get(known.url_variable, "").strip()
    base_url = _based(url or set_url or known.base_url, bare=provider == "openai")
    if not url:
        own = not set_url or base_url == known.base_url
        needed = own and provider == "openai"
        variable = known.key_variable if needed or environment.get(known.key_variable, "").strip() else ""
    endpoint = Endpoint(provider, base_url, model, variable)
    _key(endpoint, environment)
    return endpoint


def make(
    endpoint: Endpoint,
    environment: Environment,
    transport: Transport,
    *,
    makers: Mapping[str, Maker] | None = None,
) -> Provider:
    """Who speaks for an endpoint. It owns the transport from now on. Raises `MissingKey`, `UnknownName`."""
    if makers and endpoint.provider in makers:
        return makers[endpoint.provider](endpoint, environment, transport)
    known = _KNOWN.get(endpoint.provider)
    if known is None:
        raise UnknownName("provider", endpoint.provider, _cure(endpoint.provider, makers))
    headers = {}
    if endpoint.credential == "OPENAI_API_KEY":
        headers = {
            header: value for name, header in _OPENAI_HEADERS.items() if (value := environment.get(name, ""))
        }
    return OpenAI(
        endpoint.base_url,
        _key(endpoint, environment),
        transport,
        endpoint.provider,
        batches=known.batches,
        headers=headers,
    )


def _key(endpoint: Endpoint, environment: Environment) -> str:
    if not endpoint.credential:
        return ""
    key = environment.get(endpoint.credential, "").strip()
    if not key:
        raise MissingKey(endpoint.provider, endpoint.credential)
    return key


def _taken_apart(rest: str) -> tuple[str, str, str]:
    """Model, URL and variable. A model's own name may hold `@` and `:`."""
    for scheme in ("@http://", "@https://"):
        model, at, place = rest.partition(scheme)
        if at:
            url, _, variable = (at[1:] + place).partition("#")
            return model, url, variable
    return rest, "", ""


def _based(url: str, *, bare: bool) -> str:
    """A base URL in one form, so that one server isn't two; `/v1` is added where only a host is named."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidValue("base URL", "an http or https URL", "it is none", repr(url))
    path = parts.path.rstrip("/") or ("" if bare else "/v1")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def _cure(name: str, makers: Mapping[str, Maker] | None, *, prefix: bool = False) -> str:
    known = sorted([*_KNOWN, *(each for each in makers or () if each not in _KNOWN)])
    if prefix:
        return f"write it as 'provider:model', such as 'openai:{name}'; providers are {', '.join(known)}"
    close = difflib.get_close_matches(name.lower(), known, 1)
    asked = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"{asked}known are {', '.join(known)}; any server that speaks OpenAI's protocol is 'openai:MODEL@URL'"
    )
