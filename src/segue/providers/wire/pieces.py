"""Cutting a text that grows into pieces, so that they are the same however it came.

A stream that is passed through, one that is made from the recorded reply in a replay, and one that is made from
a batch's reply have to give the code that reads them the same pieces: it may break off at one of them.
"""

from __future__ import annotations

import re

import msgspec

#: A word and the space behind it; words without end are cut.
_PIECE = re.compile(r"\S{1,32}\s{0,32}|\s{1,32}")


class Pieces:
    """`add` text as it comes; it gives the pieces that are whole. `end` gives what is left."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def add(self, text: str) -> list[str]:
        """The pieces that this text completes."""
        self._held += text
        found = list(_PIECE.finditer(self._held))
        whole = [match for match in found if len(self._held) > match.end()]
        if not whole:
            return []
        self._held = self._held[whole[-1].end() :]
        return [match[0] for match in whole]

    def end(self) -> list[str]:
        """The last piece, if there is one."""
        held, self._held = self._held, ""
        return _PIECE.findall(held)


def cut(text: str) -> list[str]:
    """The pieces of a whole text."""
    return _PIECE.findall(text)


def frame(data: object, event: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"
