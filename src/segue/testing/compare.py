"""Two journals side by side: what one run did and another didn't, whatever the mode, the crashes and the order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ..core import journal
from ..model.entry import Entry, Failure
from ..runtime.wake.urgent import URGENT
from .clock import START

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")
#: Numbers in here are moments of a virtual clock.
_ERA = (START.timestamp() - 1, START.timestamp() + 30 * 365 * 86400)


def differences(
    a: Iterable[Entry], b: Iterable[Entry], names: tuple[str, str] = ("the one", "the other")
) -> list[str]:
    """How two journals differ, branch by branch, a line each; none if they tell the same.

    Times, and the order between branches, don't count; nor do calls without an outcome, which the code gave up, and
    urgent messages that came while a handler waited.
    """
    left, right = _branches(a), _branches(b)
    out: list[str] = []
    for path in sorted(left.keys() | right.keys()):
        out += _branch(path, left.get(path, {}), right.get(path, {}), names)
    return out


def _branches(entries: Iterable[Entry]) -> dict[str, dict[int, Entry]]:
    out: dict[str, dict[int, Entry]] = {}
    for entry in journal.merged(entries):
        if not entry.made and entry.kind != URGENT:
            out.setdefault(entry.path, {})[entry.n] = entry
    return out


def _branch(path: str, a: Mapping[int, Entry], b: Mapping[int, Entry], names: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for n in sorted(a.keys() | b.keys()):
        where = f"call {n} of branch {path or '/'!r}"
        one, other = a.get(n), b.get(n)
        if one is None or other is None:
            there = one or other
            assert there is not None  # n is of one of them
            has, lacks = names if one is not None else names[::-1]
            out.append(f"{where}: {_named(there)} in {has}, none in {lacks}")
        elif (one.kind, one.name) != (other.kind, other.name):
            out.append(f"{where}: {_named(one)} in {names[0]}, {_named(other)} in {names[1]}")
        else:
            out += [f"{where}, {_named(one)}: {line}" for line in _call(one, other, names)]
    return out


def _named(entry: Entry) -> str:
    return f"{entry.kind} {entry.name!r}" if entry.kind != entry.name else entry.kind


def _call(a: Entry, b: Entry, names: tuple[str, str]) -> list[str]:
    """What differs between two entries of one call."""
    out: list[str] = []
    if a.digest != b.digest and timeless(a.args) == timeless(b.args) and a.args == b.args:
        out.append("its arguments look alike, but their types don't")
    elif timeless(a.args) != timeless(b.args):
        out.append(_shown("its arguments are", a.args, b.args, names))
    if _error(a.error) != _error(b.error) or (a.error is None and timeless(a.value) != timeless(b.value)):
        out.append(_shown("it gave", _outcome(a), _outcome(b), names))
    return out


def _outcome(entry: Entry) -> bytes:
    return (entry.value or b"null") if entry.error is None else _error(entry.error).encode()


def _error(failure: Failure | None) -> str:
    return "" if failure is None else f"{failure.type}: {failure.message}"


def _shown(what: str, a: bytes, b: bytes, names: tuple[str, str]) -> str:
    """Two texts from a little before the place where they part."""
    one, other = a.decode("utf-8", "replace"), b.decode("utf-8", "replace")
    apart = next(
        (i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other))
    )
    begin = max(0, apart - 60)

    def part(text: str) -> str:
        return f"{'…' if begin else ''}{text[begin : apart + 100]}{'…' if len(text) > apart + 100 else ''}"

    return f"{what} {part(one)} in {names[0]}, {part(other)} in {names[1]}"


def timeless(data: bytes | None) -> Any:
    """JSON with every moment of time alike."""
    if not data:
        return None
    try:
        return _timeless(msgspec.json.decode(data))
    except msgspec.DecodeError:
        return _TIME.sub("<time>", data.decode("utf-8", "replace"))


def _timeless(value: Any) -> Any:
    if isinstance(value, str):
        return _TIME.sub("<time>", value)
    if isinstance(value, int | float) and _ERA[0] <= value <= _ERA[1]:
        return "<time>"
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    if isinstance(value, dict):
        return {_timeless(key): _timeless(item) for key, item in value.items()}
    return value


def show(lines: Sequence[str], most: int = 12) -> str:
    """Lines for a failing test."""
    more = [f"… and {len(lines) - most} more"] if len(lines) > most else []
    return "".join(f"\n  {line}" for line in [*lines[:most], *more])
