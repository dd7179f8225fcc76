"""An actor's children, and what of them isn't written down yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from .checkpoint import Child, Kin
from .ranks import Rank, Ranks

_size = msgspec.msgpack.Encoder().encode


class Family:
    """In the order in which they came. What is written is what they were when they were last `keep`t.

    Those that ended with their supervisor are kept as well, but aren't seen any more unless they are `back`.
    """

    __slots__ = ("_before", "_here", "_now", "_ranks", "_unwritten", "scrambled", "size")

    def __init__(self, children: Iterable[Child]) -> None:
        self._now: dict[str, Child] = {}
        self._before: dict[str, Child | None] = {}  # of those that changed since: what they were
        self._unwritten: dict[str, None] = {}  # those that were changed when they were kept
        self._ranks: Ranks | None = None  # once they are to end
        self.scrambled = False  #: whether changes alone don't tell the order any more
        self.size = 0  #: bytes, roughly
        self._here = 0  # how many aren't gone
        for child in children:
            self._now[child.id] = child
            self._here += not child.gone
            self.size += len(_size(child))

    def __len__(self) -> int:
        return self._here

    def __iter__(self) -> Iterator[Child]:
        return iter([child for child in self._now.values() if not child.gone])

    def __contains__(self, id: str) -> bool:
        return self.get(id) is not None

    def get(self, id: str) -> Child | None:
        """One of them."""
        child = self._now.get(id)
        return None if child is None or child.gone else child

    def put(self, child: Child) -> None:
        """One comes, or is another now."""
        before = self._now.get(child.id)
        if before is None:
            if (
                child.id in self._before or child.id in self._unwritten
            ):  # it was there before, at another place
                self.scrambled = True
            self.size += len(_size(child))
        self._moves(before, child)
        self._before.setdefault(child.id, before)
        self._now[child.id] = child

    def _moves(self, before: Child | None, after: Child | None) -> None:
        """Count, and rank, those that aren't gone."""
        was, is_ = before is not None and not before.gone, after is not None and not after.gone
        self._here += is_ - was
        if self._ranks is not None and was != is_:
            if after is not None and is_:
                self._ranks.add(after)
            elif before is not None:
                self._ranks.drop(before)

    def leave(self, id: str) -> None:
        """One has ended since its supervisor ends."""
        self.put(msgspec.structs.replace(self._now[id], gone=True))

    def back(self, ids: Collection[str]) -> None:
        """The supervisor goes on after all: with those of the gone; the others are no children any more."""
        for child in list(self._now.values()):
            if child.id in ids:
                self.put(msgspec.structs.replace(child, gone=False, level=child.softest, due=0.0))
            elif child.gone:
                self.drop(child.id)

    def drop(self, id: str) -> None:
        """One goes."""
        child = self._now.pop(id)
        self._moves(child, None)
        self._before.setdefault(id, child)
        self.size = self.size - len(_size(child)) if self._now else 0

    def clear(self) -> None:
        """All go."""
        for id in list(self._now):
            self.drop(id)

    def last(self, groups: Sequence[str]) -> Rank:
        """Which of them are to end first: those of the last group that there is, of its last member."""
        if self._ranks is None:
            self._ranks = Ranks(self)
        return self._ranks.last(groups)

    def of(self, rank: Rank) -> list[Child]:
        """Those of a rank."""
        return [] if self._ranks is None else [self._now[id] for id in self._ranks.of(rank)]

    @property
    def is_none(self) -> bool:
        """Whether there are none, and that is written."""
        return not (self._now or self._before or self._unwritten)

    # ------------------------------------------------------------ what is written down
    def keep(self) -> None:
        """A turn is over: what they are now is to be written."""
        if self._before:
            self._unwritten.update(dict.fromkeys(self._before))
            self._before.clear()

    def changed(self) -> list[Kin]:
        """What was kept since this, or `whole`, was last asked for."""
        unwritten, self._unwritten = self._unwritten, {}
        return [self._kept(id) or id for id in unwritten]

    def whole(self) -> list[Child]:
        """All that were kept."""
        self._unwritten.clear()
        self.scrambled = self.scrambled and bool(self._before)
        if not self._before:
            return list(self._now.values())
        kept = (self._kept(id) for id in {**self._now, **self._before})
        return [child for child in kept if child is not None]

    def _kept(self, id: str) -> Child | None:
        return self._before[id] if id in self._before else self._now.get(id)
