"""Mail with a time or a key: kept back until it is due, replaced by what comes later, sent again while it repeats."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import msgspec

from ...model.message import Letter, Mail

if TYPE_CHECKING:
    from ..wake.executor import Executor
    from ..wake.mailbox import Mailbox

#: A time that is so near, in seconds, is waited for.
SOON = 1.0


class Timers:
    """The timers of one run, as its inbox has them."""

    __slots__ = ("_box", "_coming", "_dues", "_ids", "_keys", "_later", "_orders", "_run", "_stopped")

    def __init__(self, run: Executor, box: Mailbox) -> None:
        self._run, self._box = run, box
        self._later: dict[int, Letter] = {}  # not due yet
        self._dues: list[tuple[float, int]] = []
        self._ids: list[int] = []  # a heap of those of `_later`, and of some that aren't there any more
        self._keys: dict[str, Letter] = {}  # the one that counts of each key
        #: Letters in hand whose schedule isn't theirs any more; the orders that say so stay as long, for a later life.
        self._stopped: dict[int, list[int]] = {}
        # What was sent of a schedule, and isn't here yet; None if another one was told meanwhile.
        self._coming: dict[str, Mail | None] = {}
        # Orders that found nothing: what they are of may have been on its way.
        self._orders: dict[str, list[int]] = {}

    def __len__(self) -> int:
        """How many aren't due yet."""
        return len(self._later)

    def keeps(self, letter: Letter) -> bool:
        """Take a letter in; whether it is kept back, for it isn't due, or another one counts in its place."""
        mail = letter.mail
        if mail.key:
            known = self._keys.get(mail.key)
            if mail.since and self._is_overruled(mail, known):
                self._box.take_out(letter.id)
                return True
            if (coming := self._coming.get(mail.key)) is not None and self._differs(coming, mail):
                self._coming[mail.key] = None
            if known is not None:
                in_hand = known.id == self._box.in_hand()
                differs = self._differs(known.mail, mail) if in_hand else not _is_same(known.mail, mail)
                if not differs and not (known.id in self._later and mail.due < known.mail.due):
                    self._box.take_out(letter.id)
                    return True
                self.call_off(mail.key)
            self._keys[mail.key] = letter
        if mail.due > self._run.host.clock_now() and self._box.in_hand() != letter.id:
            self._later[letter.id] = letter
            heapq.heappush(self._dues, (mail.due, letter.id))
            heapq.heappush(self._ids, letter.id)
            return True
        return False

    def _is_overruled(self, mail: Mail, known: Letter | None) -> bool:
        """Whether something else was said of a schedule before this of it was written."""
        coming, orders = self._coming.pop(mail.key, mail), self._orders.pop(mail.key, ())
        for order in orders:
            self._box.take_out(order)
        if coming is None or any(order > mail.since for order in orders):
            return True
        return known is not None and known.id > mail.since and self._differs(mail, known.mail)

    def _differs(self, mail: Mail, said: Mail) -> bool:
        """Whether what was said while that was in hand is something else than that it goes on as it was."""
        put_off = said.sender == self._run.id and not said.since and said.due != said.at + said.every
        return put_off or not _is_same(mail, said)

    def call_off(self, key: str, order: int = 0) -> bool:
        """Drop what has that key; whether the `order` is kept.

        What is in hand goes on then, and comes no more; what isn't there may be on its way.
        """
        known = self._keys.pop(key, None)
        if known is None:
            if order:
                self._orders.setdefault(key, []).append(order)
            return bool(order)
        if key in self._coming:
            self._coming[key] = None
        if self._box.in_hand() == known.id:
            self._stopped.setdefault(known.id, []).extend([order] if order else ())
            return True
        self._later.pop(known.id, None)
        self._box.take_out(known.id)
        return False

    def consumed(self, letter: Letter) -> Mail | None:
        """The code took it: what is next of a schedule, which goes to the run itself."""
        mail = letter.mail
        orders = self._stopped.pop(letter.id, None)
        for order in orders or ():
            self._box.take_out(order)
        if self._keys.get(mail.key) is letter:
            del self._keys[mail.key]
        if not mail.every or orders is not None or self._is_overtaken(mail):
            return None
        now = self._run.host.clock_now()
        missed = max((now - mail.due) // mail.every, 0)  # those count as this one
        due = mail.due + (missed + 1) * mail.every
        run = self._run
        number = run.next_number()
        tick = msgspec.structs.replace(mail, sender=run.id, number=number, due=due, at=now, since=run.seen)
        if key := mail.key:
            self._coming[key] = tick
        return tick

    def _is_overtaken(self, mail: Mail) -> bool:
        """Whether the code has said, in what is sent along, how it goes on with that key."""
        me, key = self._run.id, mail.key
        return bool(key) and any(
            sent.to == me and sent.key == key and (sent.kind == "unschedule" or self._differs(mail, sent))
            for sent in self._run.commits.turn.outbox
        )

    def ripe(self, now: float) -> list[Letter]:
        """What has become due, in order of its time. All that was there has been read."""
        for key in [key for key in self._orders if key not in self._coming]:
            for order in self._orders.pop(key):
                self._box.take_out(order)
        ripe: list[Letter] = []
        while self._dues and self._dues[0][0] <= now:
            letter = self._later.pop(heapq.heappop(self._dues)[1], None)
            if letter is not None:
                ripe.append(letter)
        return ripe

    @property
    def next_due(self) -> float | None:
        """When the next is due."""
        while self._dues and self._dues[0][1] not in self._later:
            heapq.heappop(self._dues)
        return self._dues[0][0] if self._dues else None

    @property
    def are_far(self) -> bool:
        """Whether none is due while an actor rests for its next message."""
        due = self.next_due
        return due is None or due - self._run.host.clock_now() > SOON

    def has_older(self, letter: int) -> bool:
        """Whether a letter that came before that one wasn't due then."""
        ids = self._ids
        while ids and ids[0] not in self._later:
            heapq.heappop(ids)
        return bool(ids) and ids[0] < letter


def _is_same(known: Mail, mail: Mail) -> bool:
    """Whether the schedule that runs is the one that is asked for."""
    return bool(mail.every) and (known.every, known.name, known.value) == (mail.every, mail.name, mail.value)
