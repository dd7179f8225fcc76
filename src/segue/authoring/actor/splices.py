"""What was put where in the texts of fields, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

#: Of a field's text: its name, so many bytes stay in front and so many at the back, and what is between them now.
Splice = tuple[str, int, int, bytes]


class Splices:
    """In order; those of a field that touch are one, so what only grows, or changes at one place, has one."""

    __slots__ = ("_of",)

    def __init__(self, splices: Iterable[Splice] = ()) -> None:
        self._of: dict[str, list[Splice]] = {}
        for splice in splices:
            self.add(splice)

    def __iter__(self) -> Iterator[Splice]:
        return (splice for each in self._of.values() for splice in each)

    def add(self, splice: Splice) -> None:
        """It comes after those that are there."""
        name, front, back, middle = splice
        earlier = self._of.setdefault(name, [])
        while earlier:
            _, start, end, text = earlier[-1]
            left, right = max(front - start, 0), max(back - end, 0)  # what stays of that text
            if left + right > len(text):
                break  # it is elsewhere
            middle = text[:left] + middle + text[len(text) - right :]
            front, back = min(front, start), min(back, end)
            earlier.pop()
        earlier.append((name, front, back, middle))

    def clear(self) -> None:
        """There are none."""
        self._of.clear()


class Spliced:
    """A text into which splices are put, one after the other.

    As long as they only add to it, at the same distance from its end, it isn't written anew each time.
    """

    __slots__ = ("_back", "_length", "_parts", "_text")

    def __init__(self, text: bytes | msgspec.Raw, back: int) -> None:
        """`back`: how far from its end it is likely to grow."""
        view = memoryview(text)
        self._length = len(view) - back
        # What there is up to there, and after it.
        self._parts: list[bytes | memoryview] = [view[: self._length]]
        self._back = bytes(view[self._length :])
        self._text: bytearray | None = None  # once it was changed elsewhere

    def put(self, front: int, back: int, middle: bytes | memoryview) -> None:
        """One more."""
        if self._text is None:
            if front == self._length and back == len(self._back):
                self._parts.append(middle)
                self._length += len(middle)
                return
            self._text = bytearray(self.whole())
        self._text[front : len(self._text) - back] = middle

    def whole(self) -> bytes:
        """What it has become."""
        return b"".join((*self._parts, self._back)) if self._text is None else bytes(self._text)
