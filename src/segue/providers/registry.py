"""From a model's name, such as `openai:gpt-5-mini`, to who speaks for it."""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Callable
from typing import Protocol, TypeVar

from ..model.errors import InvalidValue, MissingKey, UnknownName
from ..ports.provider import Endpoint, Environment, Provider
from ..ports.transport import Transport
from .compatible import COMPATIBLE
from .declared import DECLARED
from .masking import Mask
from .native import NATIVE

T = TypeVar("T")


class Known(Protocol):
    """What has to be known of a provider to find and make it; see `Compatible`."""

    @property
    def base_url(self) -> str: ...
    @property
    def url_variable(self) -> str: ...
    @property
    def key_variable(self) -> str: ...
    @property
    def needs_key(self) -> bool: ...
    @property
    def path(self) -> str: ...

    def make(self, endpoint: Endpoint, environment: Environment, transport: Transport) -> Provider:
        """Who speaks for it."""
        ...


KNOWN: dict[str, Known] = {**COMPATIBLE, **NATIVE}
#: What is shorter may be part of any text, and opens nothing.
KEY = 16


def resolve(name: str, environment: Environment) -> Endpoint:
    """Where a model is: `PROVIDER:MODEL`, `PROVIDER:MODEL@URL` or `PROVIDER:MODEL@URL#VARIABLE`.

    The variable names the key for that URL. Without one, a provider's own key goes to its own place only, never
    to a URL in a name: `openai:…@http://…` calls without a key. Providers that were declared are asked for none.
    Raises `UnknownName`, `InvalidValue`, and `MissingKey` where a call would fail for want of a key.
    """
    provider, colon, rest = name.partition(":")
    if not colon:
        raise UnknownName("model", name, _cure(name, prefix=True))
    if provider not in KNOWN and provider not in DECLARED:
        raise UnknownName("provider", provider, _cure(provider))
    model, url, variable = _taken_apart(rest)
    if not model:
        raise InvalidValue("model", f"a name such as '{provider}:MODEL'", "the model isn't named", repr(name))
    if provider in DECLARED:
        return Endpoint(provider, url, model, variable)
    known = KNOWN[provider]
    set_url = environment.get(known.url_variable, "").strip()
    place = url or set_url or known.base_url
    if not place:
        raise MissingKey(provider, known.url_variable, "place")
    base_url = _based(place, known.path)
    if not url:
        own = not set_url or not known.base_url or base_url == known.base_url
        needed = own and known.needs_key
        variable = known.key_variable if needed or environment.get(known.key_variable, "").strip() else ""
    endpoint = Endpoint(provider, base_url, model, variable)
    _key(endpoint, environment)
    return endpoint


def masks(environment: Environment) -> list[Mask]:
    """Of the keys of providers that an environment holds; not of words that stand for one where none is asked for."""
    held = (environment.get(known.key_variable, "").strip() for known in KNOWN.values())
    return [_mask(key) for key in held if len(key) >= KEY]


_mask = functools.lru_cache(maxsize=64)(Mask)


def make(endpoint: Endpoint, environment: Environment, transport: Transport) -> Provider:
    """Who speaks for an endpoint. It owns the transport from now on. Raises `MissingKey`, `UnknownName`."""
    if endpoint.provider in DECLARED:
        return DECLARED[endpoint.provider](endpoint)
    known = KNOWN.get(endpoint.provider)
    if known is None:
        raise UnknownName("provider", endpoint.provider, _cure(endpoint.provider))
    _key(endpoint, environment)
    return known.make(endpoint, environment, transport)


def without_keys(ask: Callable[[Environment], T], environment: Environment) -> T:
    """What `ask` gives where something stands in for each key or place that the environment lacks.

    It is for what is only read or written, never sent.
    """
    filled = dict(environment)
    lacked: set[str] = set()
    while True:
        try:
            return ask(filled)
        except MissingKey as error:
            if error.variable in lacked:
                raise
            lacked.add(error.variable)
            filled[error.variable] = "none" if error.what == "key" else "http://nowhere.invalid"


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
    if rest.endswith("@") or "@#" in rest:
        raise InvalidValue(
            "model", "a URL after the @, as in 'm@http://127.0.0.1:8080/v1'", "it is empty", repr(rest)
        )
    return rest, "", ""


def _based(url: str, added: str) -> str:
    """A base URL in one form, so that one server isn't two; `added` is its path where only a host is named."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidValue("base URL", "an http or https URL", "it is none", repr(url))
    path = parts.path.rstrip("/") or added
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def _cure(name: str, *, prefix: bool = False) -> str:
    import difflib

    known = sorted([*KNOWN, *DECLARED])
    if prefix:
        return f"write it as 'provider:model', such as 'openai:{name}'; providers are {', '.join(known)}"
    close = difflib.get_close_matches(name.lower(), known, 1)
    asked = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"{asked}known are {', '.join(known)}; any server that speaks OpenAI's protocol is 'openai:MODEL@URL'"
    )
