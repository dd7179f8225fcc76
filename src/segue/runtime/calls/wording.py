"""Answers as they are recorded: a person's, and what a fork hands over in place of another one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import msgspec

from ...authoring.message import message_name
from ...core.codec import encode
from ...core.conform import misfit
from ...core.forms import short
from ...model.chat import ChatReply
from ...model.errors import InvalidValue
from ...ports.provider import Provider

Path = tuple[str | int, ...]
#: Many questions ask for the same.
_read_schema = functools.lru_cache(maxsize=256)(msgspec.json.decode)


def fitting(value: object, schema: bytes, where: str) -> bytes:
    """An answer to a question for that. Raises `InvalidValue` for one that is none."""
    plain = getattr(value, "plain", None)
    data = encode(plain() if callable(plain) else value, where=where)
    wanted = _read_schema(schema)
    problem = misfit(msgspec.json.decode(data), wanted)
    if problem is not None:
        raise InvalidValue(where, msgspec.json.encode(wanted).decode(), problem, data.decode()[:200])
    return data


class _Question(msgspec.Struct):
    schema: msgspec.Raw


def answered(args: bytes, value: object, where: str) -> Any:
    """Another answer to a recorded question."""
    return msgspec.json.decode(fitting(value, bytes(msgspec.json.decode(args, type=_Question).schema), where))


def reworded(provider: Provider, body: bytes | None, value: object, where: str) -> Any:
    """The response in which the model says `value`; a value that is a whole response of the provider's, as it is.

    A text is what is said; anything else is said as JSON. All else of the response stays. Raises `InvalidValue` for
    one that has no such words, as where a tool is called.
    """
    whole = _reply(provider, value) if isinstance(value, dict) else None
    if whole is not None and (whole.text or whole.tool_calls):
        return value
    answer = None if body is None else msgspec.json.decode(body)
    before = _reply(provider, answer)
    words = value if isinstance(value, str) else encode(value, where=where).decode()
    if before is not None and before.text:
        for path in _places(answer, before.text):
            there = _at(answer, path)
            other = _with(answer, path, words if isinstance(there, str) else msgspec.json.decode(words))
            if _reply(provider, other) == msgspec.structs.replace(before, text=words):
                return other
    wanted = f"a whole response of {provider.name}, as `segue export` has it"
    raise InvalidValue(
        where, wanted, "the answer that was recorded has no words to put others in place of", repr(value)
    )


def revectored(provider: Provider, body: bytes | None, value: object, where: str) -> Any:
    """The response with other vectors for the same texts; a whole response of the provider's, as it is."""
    if _vectors(provider, value) is not None:
        return value
    answer = None if body is None else msgspec.json.decode(body)
    before = _vectors(provider, answer) or []
    other, left = answer, list(range(len(before)))
    if isinstance(value, list) and len(value) == len(before):
        for path, there in list(_lists(answer)):
            number = next((each for each in left if before[each] == there), None)
            if number is not None:
                left.remove(number)
                other = _with(other, path, value[number])
        if _vectors(provider, other) == value:
            return other
    wanted = f"{len(before)} vectors, or a whole response of {provider.name}, as `segue export` has it"
    raise InvalidValue(where, wanted, "it is neither", short(repr(value)))


def retold(body: bytes | None, value: object) -> Any:
    """A message in the place of a received one: the fields of one like it, or a message, maybe of another class."""
    if body is None or (isinstance(value, dict) and value.keys() == {"name", "value"}):
        return value  # as `segue show` has it
    plain = value is None or isinstance(value, dict | list | str | int | float | bool)
    return {"name": msgspec.json.decode(body)["name"] if plain else message_name(type(value)), "value": value}


def _vectors(provider: Provider, answer: object) -> list[list[float]] | None:
    """What a response has, if it is one."""
    try:
        return provider.embed_reply(msgspec.json.encode(answer))[0]
    except Exception:  # whatever a provider says of what is no answer
        return None


def _lists(node: object, path: Path = ()) -> Iterator[tuple[Path, list[Any]]]:
    """The lists that hold no others, and where they stand."""
    if isinstance(node, list) and not any(isinstance(each, dict | list) for each in node):
        yield path, node
        return
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield from _lists(child, (*path, key))


def _reply(provider: Provider, answer: object) -> ChatReply | None:
    """What a response says, if it is one."""
    try:
        return provider.chat_reply(msgspec.json.encode(answer))
    except Exception:  # whatever a provider says of what is no answer
        return None


def _places(node: object, words: str, path: Path = ()) -> Iterator[Path]:
    """Where the words stand: as a text, or as the object that they are the JSON of."""
    if node == words or (isinstance(node, dict) and _json(words) == node):
        yield path
        return
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield from _places(child, words, (*path, key))


def _json(words: str) -> object:
    try:
        return msgspec.json.decode(words)
    except msgspec.DecodeError:
        return None


def _at(node: Any, path: Path) -> Any:
    for key in path:
        node = node[key]
    return node


def _with(node: Any, path: Path, value: object) -> Any:
    """A copy in which that stands at that place."""
    if not path:
        return value
    copy = node.copy()
    copy[path[0]] = _with(node[path[0]], path[1:], value)
    return copy
