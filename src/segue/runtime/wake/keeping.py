"""Letters that stay when their handler is done: requests to be answered later, and subscriptions."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final

from ...model.message import Letter, Mail
from ...ports.store import adding

if TYPE_CHECKING:
    from .executor import Executor
    from .mailbox import Mailbox

#: Of those that wait for kept requests, so many go with each request that the run makes, to find circles: they travel.
MOST: Final = 1000


class Keeping:
    """What one run keeps; see `authoring.context.Letters`."""

    __slots__ = (
        "_answered",
        "_beside",
        "_bounded",
        "_box",
        "_given_up",
        "_keeper",
        "_kept",
        "_keys",
        "_run",
        "_standing",
        "_struck",
        "_subscribers",
        "_waiting",
        "settled",
    )

    def __init__(self, run: Executor, box: Mailbox) -> None:
        self._run, self._box = run, box
        self._kept: dict[int, Letter] = {}
        self._waiting: dict[str, int] = {}  # who waits for requests of these to be answered, and for how many
        self._bounded: list[tuple[float, int]] = []  # until when, of those letters; a heap
        self._given_up = set[int]()  # whose callers wait no more
        self._subscribers: dict[str, dict[int, Mail]] = {}  # by what they subscribed to
        # Of actors that follow for longer than a handler: the letter by who follows what.
        self._standing: dict[tuple[str, str, bytes | None], int] = {}
        # Letters by subscription, also those that are yet to be handled.
        self._keys: dict[str, list[int]] = {}
        # Those that struck beside a handler, and of which no snapshot is begun with yet.
        self._struck: set[tuple[str, int]] = set()
        self._beside: dict[
            str, Mail
        ] = {}  # urgent ones that somebody waits for, by where they are carried out
        self._keeper = 0  # the letter whose handler may answer it later
        self._answered = False  # it has
        #: Orders that say that another run has answered requests whose handlers are at work, or that subscriptions are
        #: called off, by those: they stay as long, for a later life.
        self.settled: dict[int, list[int]] = {}

    def callers(self, path: str = "", *, kept_only: bool = False) -> tuple[str, ...]:
        """The runs that wait, in chains, for this one to answer; not those whose time to wait is up."""
        now, bounded = self._run.now(), self._bounded
        while bounded and bounded[0][0] <= now:
            _, id = heapq.heappop(bounded)
            if (letter := self._kept.get(id)) is not None:
                self._given_up.add(id)
                self._waits_no_more(letter.mail)
        keeps = self._keeper and self._keeper == self._box.hand
        mine = self._run.callers if keeps or not kept_only else ()
        if mine and (hand := self._box.letter(self._box.hand)) is not None and 0 < hand.mail.until <= now:
            mine = ()
        for place, mail in self._beside.items():
            if (path == place or path.startswith(f"{place}/")) and not 0 < mail.until <= now:
                mine = (*mine, *mail.callers)
        return tuple(dict.fromkeys((*islice(self._waiting, MOST), *mine))) if self._waiting else mine

    def comes_beside(self, path: str, mail: Mail) -> None:
        """An urgent message is carried out there."""
        if mail.callers:
            self._beside[path] = mail

    def goes_beside(self, path: str) -> None:
        """It is over."""
        self._beside.pop(path, None)

    def __len__(self) -> int:
        return len(self._kept)

    def kept(self, id: int) -> Letter | None:
        """That letter, if it stays."""
        return self._kept.get(id)

    def keep(self, letter: Letter) -> None:
        """A letter stays from now on, or has since an earlier life."""
        mail = letter.mail
        self._kept[letter.id] = letter
        if mail.kind == "subscribe":
            self._subscribers.setdefault(mail.name, {})[letter.id] = mail
            if not mail.tag:  # one that began anew, or tried again, asks anew: it is told all once
                before = self._standing.get(_followed(mail))
                self._standing[_followed(mail)] = letter.id
                if before is not None and before != letter.id:
                    self._box.take_out(before)
            return
        for caller in mail.callers:
            self._waiting[caller] = self._waiting.get(caller, 0) + 1
        if mail.until and mail.callers:
            heapq.heappush(self._bounded, (mail.until, letter.id))

    def _waits_no_more(self, mail: Mail) -> None:
        for caller in mail.callers:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]

    def pop(self, id: int) -> Letter | None:
        """A letter that was kept, and leaves."""
        letter = self._kept.pop(id, None)
        if letter is None:
            return None
        mail = letter.mail
        if mail.kind == "subscribe":
            del self._subscribers[mail.name][id]
            if self._standing.get(_followed(mail)) == id:
                del self._standing[_followed(mail)]
            return letter
        if id in self._given_up:
            self._given_up.discard(id)
        else:
            self._waits_no_more(mail)
        return letter

    def may_keep(self, letter: int) -> None:
        """A handler begins that may answer its request later."""
        self._keeper, self._answered = letter, False

    def owes(self, letter: int) -> bool:
        """Whether that request is in hand or kept, and hasn't been answered."""
        return letter in self._kept or (letter == self._keeper and not self._answered)

    def answered(self, letter: int) -> None:
        """The code answers that request, in a replay too."""
        if letter == self._keeper:
            self._answered = True

    def has_answered(self, letter: int) -> bool:
        """Whether the code has answered the request in hand."""
        return letter == self._keeper and self._answered

    def release(self, letter: int) -> None:
        """With the next commit, a request is answered; one in hand goes when its handler is done."""
        if letter in self._kept:
            self._box.take_out(letter)

    def settles(self, letter: int, order: int) -> bool:
        """Another run has answered that request; whether the `order` that says so stays."""
        if letter in self._kept:
            self._box.take_out(letter)
        elif self._box.letter(letter) is not None:
            self.settled.setdefault(letter, []).append(order)
            return True
        return False

    def is_done(self, letter: Letter) -> bool:
        """Whether a letter whose handler is done is to leave the inbox; if not, it was kept."""
        keeps = letter.id == self._keeper  # not so one that was carried out beside the handler that may
        if keeps:
            self._keeper = 0
        over = letter.id in self.settled
        if over or (letter.mail.kind != "subscribe" and (not keeps or self._answered)):
            return True
        self.keep(letter)
        turn = self._run.commits.turn
        turn.kept = adding(turn.kept, letter.id)
        return False

    # ------------------------------------------------------------ subscriptions
    def drop_events(self, key: str) -> None:
        """Nobody wants the events of that subscription any more."""
        self._box.drop_events(key)

    def subscribers(self, name: str) -> list[Mail]:
        """Those who subscribed to messages of that name, and whose snapshots don't have what is told now."""
        known = self._subscribers.get(name, {}).values()
        struck = self._struck
        return [mail for mail in known if (mail.sender, mail.number) not in struck] if struck else list(known)

    def strikes(self, subscription: Mail) -> None:
        """One comes beside a handler. What that tells before the snapshot is taken is in the snapshot."""
        self._struck.add((subscription.sender, subscription.number))

    def begins(self, mail: Mail) -> None:
        """What came beside a handler is begun with."""
        self._struck.discard((mail.sender, mail.number))

    def came(self, subscription: Letter) -> None:
        """A subscription is asked for, or was in an earlier life."""
        self._keys.setdefault(subscription.mail.key, []).append(subscription.id)

    def left(self, subscription: Letter) -> None:
        """Its letter leaves the inbox."""
        key = subscription.mail.key
        letters = self._keys.get(key, [])
        if subscription.id in letters:
            letters.remove(subscription.id)
        if not letters:
            self._keys.pop(key, None)

    def unsubscribe(self, key: str, order: int = 0) -> bool:
        """A subscription is called off; whether the `order` that says so stays, for its snapshot is being taken."""
        stays = False
        for letter in self._keys.pop(key, ()):
            if order and letter not in self._kept and letter == self._box.in_hand():
                self.settled[letter] = [order]
                stays = True
            else:
                self._box.take_out(letter)
        return stays


def _followed(subscription: Mail) -> tuple[str, str, bytes | None]:
    return subscription.sender, subscription.name, subscription.value
