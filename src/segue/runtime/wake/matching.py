"""Which messages may go to calls that wait for some: by name, so that what nobody takes is never passed over."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush

from ...model.message import Letter


class Matching:
    """The messages of a mailbox that calls may take, by name. `posts`: those that are still there."""

    __slots__ = ("_count", "_lying", "_names", "_posts")

    def __init__(self, posts: Mapping[int, Letter]) -> None:
        self._posts = posts
        self._lying: dict[str, deque[tuple[int, int]]] = {}  # their order and id
        self._names: set[str] = set()  # of which a message or a call has come since they were matched
        self._count = 0
        for letter in posts.values():
            self.came(letter)

    def came(self, letter: Letter) -> None:
        """One more message."""
        mail = letter.mail
        if mail.reply is not None:  # somebody waits for an answer, which no call gives
            return
        self._count += 1
        self._lying.setdefault(mail.name, deque()).append((self._count, letter.id))
        self._names.add(mail.name)

    def wanted(self, names: Iterable[str]) -> None:
        """One more call waits for messages of these names."""
        self._names.update(names)

    def oldest_first(self, wanted: Mapping[str, object]) -> Iterator[Letter]:
        """The messages of names that are `wanted`, as long as they are, in order."""
        names, self._names = self._names, set()
        heads = [(first, name) for name in names if name in wanted and (first := self._first(name))]
        heapify(heads)
        while heads:
            first, name = heappop(heads)
            if name not in wanted:
                continue
            self._lying[name].popleft()
            if (following := self._first(name)) is not None:
                heappush(heads, (following, name))
            yield self._posts[first[1]]

    def _first(self, name: str) -> tuple[int, int] | None:
        """The oldest of a name that is still there."""
        lying = self._lying.get(name)
        if lying is None:
            return None
        while lying and lying[0][1] not in self._posts:
            lying.popleft()
        if not lying:
            del self._lying[name]
            return None
        return lying[0]
