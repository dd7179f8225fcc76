"""Letters that stay when their handler is done: requests to be answered later, and subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...model.message import Letter, Mail
from ...ports.store import adding

if TYPE_CHECKING:
    from .executor import Executor
    from .mailbox import Mailbox


class Keeping:
    """What one run keeps; see `authoring.context.Letters`."""

    __slots__ = ("_answered", "_box", "_keeper", "_run", "letters")

    def __init__(self, run: Executor, box: Mailbox) -> None:
        self._run, self._box = run, box
        self.letters: dict[int, Letter] = {}
        self._keeper = 0  # the letter whose handler may answer it later
        self._answered = False  # it has

    def callers(self, *, kept_only: bool = False) -> tuple[str, ...]:
        """The runs that wait, in chains, for this one to answer."""
        run = self._run
        if not self.letters:
            return () if kept_only and not self._keeper else run.callers
        chains = [letter.mail.callers for letter in self.letters.values()]
        if self._keeper or not kept_only:
            chains.append(run.callers)
        return tuple(dict.fromkeys(caller for chain in chains for caller in chain))

    def may_keep(self, letter: int) -> None:
        """A handler begins that may answer its request later."""
        self._keeper, self._answered = letter, False

    def answered(self, letter: int) -> None:
        """The code answers that request, in a replay too."""
        if letter == self._keeper:
            self._answered = True

    def release(self, letter: int) -> None:
        """With the next commit, a request is answered; one in hand goes when its handler is done."""
        if letter in self.letters:
            self._box.take_out(letter)

    def is_done(self, letter: Letter) -> bool:
        """Whether a letter whose handler is done is to leave the inbox; if not, it was kept."""
        if letter.mail.kind != "subscribe" and (letter.id != self._keeper or self._answered):
            self._keeper = 0
            return True
        self._keeper = 0
        self.letters[letter.id] = letter
        turn = self._run.commits.turn
        turn.kept = adding(turn.kept, letter.id)
        return False

    def drop_events(self, key: str) -> None:
        """Nobody wants the events of that subscription any more."""
        self._box.drop_events(key)

    def subscribers(self, name: str) -> list[Mail]:
        """Those who subscribed to messages of that name."""
        return [
            letter.mail
            for letter in self.letters.values()
            if letter.mail.kind == "subscribe" and letter.mail.name == name
        ]

    def unsubscribe(self, key: str) -> None:
        """A subscription is called off."""
        for letter in list(self.letters.values()):
            if letter.mail.kind == "subscribe" and letter.mail.key == key:
                self._box.take_out(letter.id)
