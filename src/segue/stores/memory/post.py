"""Mail in the store in memory: to inboxes, to the ports of processes, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile

from ...model.message import PORT, Letter, Mail
from ...model.run import ENDED
from ...ports.store import Came, Delivery, Turn
from .. import refusal
from .box import Box
from .hints import Hints
from .run import Run
from .runs import Runs
from .untaken import DeadLetters

_DELIVERED: Delivery = "delivered"


class Post:
    """Who brings mail to runs and processes."""

    def __init__(self, runs: Runs, hints: Hints) -> None:
        self._runs = runs
        self.dead = DeadLetters()
        self._hints = hints
        self._last = 0  #: letter
        self._ports: dict[str, list[Letter]] = {}  #: what came to processes, oldest first
        self.refused: list[refusal.Refused] = []  #: by the mail that is being delivered just now

    # ------------------------------------------------------------ looking
    def inbox(self, run: str, after: int) -> list[Letter]:
        """What a run has in its inbox after a letter."""
        known = self._runs.by_id.get(run)
        if known is None or not known.inbox:
            return []
        newer = takewhile(lambda letter: letter.id > after, reversed(known.inbox.values()))
        return list(newer)[::-1]

    def letters(self, after: Mapping[str, int]) -> dict[str, list[Letter]]:
        """What came to addresses after the letters that are known."""
        out: dict[str, list[Letter]] = {}
        for address, newest in after.items():
            found = list(takewhile(lambda letter: letter.id > newest, self._newest_first(address)))  # noqa: B023
            if found:
                found.reverse()
                out[address] = found
        return out

    def _newest_first(self, address: str) -> Iterator[Letter]:
        if address.startswith(PORT):
            return reversed(self._ports.get(address, ()))
        run = self._runs.by_id.get(address)
        return reversed((run.inbox or {}).values()) if run is not None else iter(())

    def clear(self, port: str, upto: int) -> None:
        """What came to a port up to a letter was taken."""
        left = [letter for letter in self._ports.pop(port, ()) if letter.id > upto]
        if left:
            self._ports[port] = left

    def workers(self) -> set[str]:
        """Who has mail."""
        return {port.removeprefix(PORT) for port in self._ports}

    def bury(self, workers: Collection[str]) -> None:
        """Nobody is at the ports of these."""
        for worker in workers:
            self._ports.pop(PORT + worker, None)

    # ------------------------------------------------------------ delivering
    def deliver(self, mail: Sequence[Mail], now: float) -> list[Delivery]:
        """Mail from outside of turns."""
        out: list[Delivery] = []
        asked = False
        for one in mail:
            out.append(self.send(one, now, mark=True))
            if one.reply is not None:
                asked = True
        self._delivered(now, asked=asked)
        return out

    def bring(self, mail: Mail, now: float) -> Delivery:
        """One letter from outside of turns."""
        run, delivery = self._runs.by_id.get(mail.to), _DELIVERED
        if run is not None and run.marks is not None and run.box is None and run.status == "ready":
            if mail.number <= run.marks.get(mail.sender, -1):  # as `send`, of a run at work
                return "duplicate"
            run.marks[mail.sender] = mail.number
            if mail.reply is not None and self._handed_over(run, mail):
                return _DELIVERED
            self._put(run, mail, now)
        else:
            delivery = self.send(mail, now, mark=True)
        asked = mail.reply is not None
        if asked or self.refused or self._hints.at_ports:
            self._delivered(now, asked=asked)
        return delivery

    def _handed_over(self, run: Run, mail: Mail) -> bool:
        """Whether a run in memory, which has all letters before, took it at once: who asks waits for it."""
        inbox = run.inbox
        awake = self._hints.awake(run.id, next(reversed(inbox)) if inbox else 0)
        if awake is None:
            return False
        self._last = id = self._last + 1
        letter = Letter(id, mail)
        if inbox is None:
            run.inbox = {id: letter}
        else:
            inbox[id] = letter
        awake.mail((letter,))
        return True

    def _delivered(self, now: float, *, asked: bool) -> None:
        if self.refused:
            self.give_back(now)
        if self._hints.at_ports:
            self._hints.tell_ports()
        if asked:  # who asks waits, so it isn't put off for others to come
            self._hints.tell()

    def send(self, mail: Mail, now: float, *, mark: bool, stays: bool = False) -> Delivery:
        """Put mail into an inbox. What comes from an outbox `stays` the store's care if that can't be done."""
        run = self._runs.by_id.get(mail.to)
        if run is None or (run.status in ENDED and not refusal.is_kept(mail, run.status)):
            return self._put_elsewhere(run, mail, now, stays)
        marks = run.marks
        if mark and mail.number <= (-1 if marks is None else marks.get(mail.sender, -1)):
            return "duplicate"
        delivery: Delivery = "delivered"
        if run.box is not None and refusal.takes_room(mail, run.spec.full) and not run.box.has_room:
            delivery = self._turn_away(run, run.box, mail, now, stays)
            if delivery == "full":
                return delivery
        else:
            self._put(run, mail, now)
        if mark:
            if marks is None:
                run.marks = {mail.sender: mail.number}
            else:
                marks[mail.sender] = mail.number
        return delivery

    def _put(self, run: Run, mail: Mail, now: float) -> None:
        self._last = id = self._last + 1
        letter, inbox, hints = Letter(id, mail), run.inbox, self._hints
        if run.box is not None and refusal.takes_room(mail, run.spec.full):
            run.box.taken.add(id)
        came = hints.came.get(run.id)
        due = refusal.wakes_at(mail, now) if run.box is None and mail.due else 0.0
        if run.status == "parked" and due:
            self._runs.wake_by(run, due)
        elif run.status == "parked" or (run.status == "held" and mail.kind == "cancel"):
            self._runs.move(run, "ready")
            run.updated = now
            self._runs.enqueue(run)
        elif came is not None:
            came.letters.append(letter)
        elif run.status not in ENDED:  # where it lies until the run goes on
            hints.came[run.id] = Came(next(reversed(inbox)) if inbox else 0, [letter])
            if not hints.telling:
                hints.tell_later()
        if inbox is None:
            run.inbox = {id: letter}
        else:
            inbox[id] = letter

    def _put_elsewhere(self, run: Run | None, mail: Mail, now: float, stays: bool) -> Delivery:
        """What is for a process's port, or for nobody any more."""
        if run is not None:
            if stays:
                self.refused.append(refusal.ended([mail], run.id, run.status, now))
        elif mail.to.startswith(PORT):
            self._last += 1
            letter, port = Letter(self._last, mail), self._ports.setdefault(mail.to, [])
            if mail.to in self._hints.at_ports:
                self._hints.at_ports[mail.to].letters.append(letter)
            else:
                self._hints.at_ports[mail.to] = Came(port[-1].id if port else 0, [letter])
            port.append(letter)
            return "delivered"
        elif stays:
            self.refused.append(refusal.unknown([mail], mail.to, now))
        return "gone"

    # ------------------------------------------------------------ full boxes, and what nobody takes
    def _turn_away(self, run: Run, box: Box, mail: Mail, now: float, stays: bool) -> Delivery:
        """What a full mailbox does with a message."""
        if run.spec.full != "drop" and not stays:
            return "full"
        if run.spec.full == "wait":
            box.waiting.append(mail)
            return "delivered"
        self.refused.append(refusal.full(mail, box.size, now))
        return "dropped"

    def make_room(self, run: Run, box: Box, turn: Turn) -> None:
        """What waits gets in as far as there is room."""
        while run.status not in ENDED and box.waiting and len(box.taken) < box.size:
            self._put(run, box.waiting.popleft(), turn.now)
        self._hints.hint("room", run.id)

    def give_back(self, now: float) -> None:
        """Keep the dead letters, and tell those who wait for an answer."""
        refused, self.refused = self.refused, []
        for one in refused:
            self.dead.put(one.dead, now)
            for mail in one.back:
                self.send(mail, now, mark=False, stays=True)
            if self.refused:
                self.give_back(now)

    def resend(self, dead: int, now: float) -> Delivery | None:
        """Send a dead letter once more."""
        letter = self.dead.get(dead)
        if letter is None:
            return None
        delivery = self.send(letter.mail, now, mark=False)
        self.give_back(now)
        if self._hints.at_ports:
            self._hints.tell_ports()
        if delivery in ("delivered", "dropped"):
            self.dead.drop([dead])
        return delivery
