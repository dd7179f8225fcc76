"""What a value loses on its way: it is written as what it is, and read as what is annotated.

So an instance of a subclass, where its base is annotated, arrives as one of the base. No call pays for looking:
it is looked for where runs are replayed, in what they have recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ...core.codec import encode

log = logging.getLogger("segue")

_TOLD: set[tuple[str, str]] = set()


class Losses:
    """What is lost in runs of one flow or actor; each told once."""

    def __init__(self, target: str) -> None:
        self.target, self.found = target, dict[str, None]()

    def look(self, where: str, data: bytes, read: Callable[[bytes], Any]) -> None:
        """Look at what was written and what is read of it. What can't be read is told elsewhere."""
        try:
            again = encode(read(data))
            path = "" if again == data else _missing(_parse(data), _parse(again), "")
        except Exception:
            return
        if path:
            self.found[f"{path} of {where}"] = None

    def tell(self, run: str) -> None:
        """Log what was found."""
        for what in self.found:
            if (self.target, what) not in _TOLD:
                _TOLD.add((self.target, what))
                log.warning(
                    "%s (run %s): %s isn't kept: the class that is annotated there has no such field. Annotate the "
                    "class that is passed, or a union of those that may be",
                    self.target,
                    run,
                    what,
                )


_parse = msgspec.json.Decoder().decode


def _missing(was: Any, now: Any, path: str) -> str:
    """The path of the first key that isn't there any more; empty if all are, or the form is another one."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name, part in was.items():
            if name not in now:
                return f"{path}.{name}"
            if found := _missing(part, now[name], f"{path}.{name}"):
                return found
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, part in enumerate(was):
            if found := _missing(part, now[index], f"{path}[{index}]"):
                return found
    return ""
