"""What a journal demands of code that runs again.

A call is known by where it stands, `(path, n)`; its name and digest are its check. Outcomes go back to the
code in the batches in which they were handed over the first time: batch `k` once every recorded call that
was made having seen at most `k` batches was made again. So races, semaphores and queues between a run's
tasks come out as they did, whatever order the tasks run in now.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..model.entry import MADE, Entry

Place = tuple[str, int]


class Differs(Exception):
    """The call at `entry`'s place is another one now."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        super().__init__(f"{entry.path}#{entry.n}")


def calls_of(entries: Iterable[Entry]) -> dict[Place, Entry]:
    """Each call with its outcome, by place. There needn't be all entries of a journal."""
    calls: dict[Place, Entry] = {}
    for entry in entries:
        place = (entry.path, entry.n)
        known = calls.get(place)
        calls[place] = entry if known is None else _completed(known, entry)
    return calls


class Replay:
    """One life's way through a journal: `made` for each call as the code makes it, `next_batch` at each rest."""

    __slots__ = ("_batches", "_clear", "_drops", "_lacking", "_missing", "calls", "handed", "time", "total")

    def __init__(self, entries: Iterable[Entry], started: float) -> None:
        self.calls: dict[Place, Entry] = {}
        self.handed = self.total = self._clear = self._lacking = 0
        self.time = started
        self._batches: list[list[Entry]] = []
        self._missing = [0]
        self._drops: set[Place] = set()  # calls that the code has to give up again
        if entries:
            self._read(entries)

    def _read(self, entries: Iterable[Entry]) -> None:
        """Take the journal in."""
        for entry in entries:
            place = (entry.path, entry.n)
            known = self.calls.get(place)
            call = self.calls[place] = entry if known is None else _completed(known, entry)
            if entry.batch >= 0:  # in a batch, the order of the outcomes counts, not that of the calls
                while len(self._batches) <= call.batch:
                    self._batches.append([])
                self._batches[call.batch].append(call)
        self.total = len(self._batches)
        self._missing = [0] * (self.total + 1)
        for place, entry in self.calls.items():
            self._missing[entry.after] += 1
            if 0 <= entry.given_up <= self.total:
                self._missing[entry.given_up] += 1
                self._drops.add(place)
        self._lacking = len(self.calls) + len(self._drops)

    @property
    def live(self) -> bool:
        """Whether every recorded batch was handed over: what is new may start."""
        return self.handed >= self.total

    def made(self, path: str, n: int, kind: str, name: str, digest: bytes) -> Entry | None:
        """The record of a call that the code makes, if there is one. Raises `Differs` if it is of another call."""
        entry = self.calls.get((path, n))
        if entry is None:
            return None
        if entry.kind != kind or entry.name != name or entry.digest != digest:
            raise Differs(entry)
        self._missing[entry.after] -= 1
        self._lacking -= 1
        return entry

    def gave_up(self, place: Place) -> None:
        """The code has given a call up."""
        if place in self._drops:
            self._drops.remove(place)
            self._missing[self.calls[place].given_up] -= 1
            self._lacking -= 1

    def next_batch(self) -> list[Entry] | None:
        """The next batch, if the code has made all the calls that had been made before it was handed over."""
        if self.handed >= self.total:
            return None
        while self._clear < self.total and self._missing[self._clear] == 0:
            self._clear += 1
        if self._clear <= self.handed:
            return None
        batch = self._batches[self.handed]
        self.handed += 1
        if batch:
            self.time = batch[0].at
        return batch

    def hand_over(self, at: float) -> None:
        """A new batch is handed over; it has the number `handed` until then."""
        self.handed += 1
        self.total = self.handed
        self.time = at

    def lacking(self, made: Iterable[Place]) -> list[Entry]:
        """Recorded calls that the code hasn't made again, or not given up again."""
        if not self._lacking:
            return []
        done = set(made) - self._drops
        return [entry for place, entry in self.calls.items() if place not in done]

    @property
    def complete(self) -> bool:
        """Whether every recorded call was made again, and given up if it was."""
        return not self._lacking

    @property
    def used_up(self) -> bool:
        """Whether all was made again and handed over: the code stands where the life before stood."""
        return self.live and not self._lacking


def _completed(known: Entry, later: Entry) -> Entry:
    """A call that was journaled when made, with its outcome; or one with its outcome that was given up after all."""
    if later.batch == MADE:
        return known
    if not known.made:
        return msgspec.structs.replace(known, batch=later.batch)
    return Entry(
        known.path,
        known.n,
        known.kind,
        known.name,
        known.digest,
        known.args,
        known.after,
        later.batch,
        later.value,
        later.error,
        later.at,
        known.args_blob,
        later.value_blob,
        known.due,
        later.reused,
        known.opened,
    )
