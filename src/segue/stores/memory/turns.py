"""Turns of the store in memory: what a commit writes, and how a run ends and goes on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...model.entry import Pool
from ...model.message import Mail
from ...model.mode import Config
from ...model.run import ENDED, Status
from ...ports.store import CommitResult, Turn
from .. import refusal, room
from ..outcome import end_mail
from .archive import Archive
from .budgets import Budgets
from .hints import Hints
from .lines import Lines
from .post import Post
from .questions import Questions
from .run import Run
from .runs import Runs
from .sharing import Sharing
from .traffic import Traffic

#: A copy of bytes that has room for no more: msgspec's take half as much again as they need.
_fitted = b"".join


class Turns:
    """Who writes what a run did."""

    def __init__(
        self,
        runs: Runs,
        post: Post,
        questions: Questions,
        archive: Archive,
        lines: Lines,
        sharing: Sharing,
        traffic: Traffic,
        budgets: Budgets,
        hints: Hints,
    ) -> None:
        self._runs = runs
        self._post = post
        self._questions = questions
        self._archive = archive
        self._lines = lines
        self._sharing = sharing
        self._traffic = traffic
        self._budgets = budgets
        self._hints = hints

    def append(self, run: str, fence: int, entries: bytes) -> bool:
        """Journal rows between turns; not without the claim."""
        held = self._runs.held.get(run)
        if held is None or held.fence != fence:
            return False
        if held.lapses:
            self._gets_on(held)
        entries = _fitted((entries, b""))
        if held.journal is None:
            held.journal = [entries]
        else:
            held.journal.append(entries)
        return True

    def _gets_on(self, run: Run) -> None:
        """It is no suspect any more, so the next one may be claimed."""
        run.lapses = 0
        self._hints.hint("ready", run.id)

    def commit(self, turns: Sequence[Turn]) -> list[CommitResult]:
        """Each by itself; room in budgets that they give back is given to others at the end."""
        out: list[CommitResult] = [self._commit(turn) for turn in turns]
        if self._budgets.hungry:
            self._feed([turn for turn, came in zip(turns, out, strict=True) if came != "fenced"])
        return out

    def land(self, turn: Turn) -> CommitResult:
        """One alone."""
        came = self._commit(turn)
        if self._budgets.hungry and came != "fenced":
            self._feed([turn])
        return came

    def _feed(self, turns: Sequence[Turn]) -> None:
        """Give others the room that these give back."""
        if any(map(room.may_give_back, turns)):
            self._budgets.wake(max(turn.now for turn in turns))

    def _commit(self, turn: Turn) -> CommitResult:
        """All that a turn says, or nothing without the claim."""
        run = self._runs.held.get(turn.run)
        if run is None or run.fence != turn.fence:
            return "fenced"
        if run.lapses:
            self._gets_on(run)
        if turn.checkpoint is not None or turn.delta is not None:
            self._keep(run, turn)
        if turn.entries is not None:
            entries = _fitted((turn.entries, b""))
            if run.journal is None:
                run.journal = [entries]
            else:
                run.journal.append(entries)
        if turn.usage is not None:
            run.usage = list(turn.usage)
        if turn.kept or (turn.consumed and run.box is not None):
            self._take(run, turn)
        elif turn.consumed and run.inbox:
            for letter in turn.consumed:
                run.inbox.pop(letter, None)
            if not run.inbox:
                run.inbox = None
        if (
            turn.spawn or turn.lines or turn.asks or turn.closed_asks or turn.blobs
            or turn.dead or turn.answers or turn.withdrawn or turn.settled
        ):  # fmt: skip
            self._put_more(run, turn)
        if turn.status != "ready" or turn.release:
            return self._go(run, turn)
        for mail in turn.outbox:
            self._post.send(mail, turn.now, mark=True, stays=True)
        if self._post.refused or run.box is not None or self._hints.at_ports:
            self._tell(run, turn)
        return "committed"

    def _put_more(self, run: Run, turn: Turn) -> None:
        """What few turns have."""
        if turn.dead:
            self._post.dead.put(turn.dead, turn.now)
        if turn.blobs:
            self._archive.put(run, turn.blobs)
        for new in turn.spawn:
            self._runs.create(new, turn.now)
        if turn.withdrawn:
            self._traffic.withdraw(turn.withdrawn)
        for answer in turn.answers:
            self._sharing.keep(answer)
        for line in turn.lines:
            self._traffic.put(run, line)
        if turn.settled:
            self._budgets.settle(turn.settled)
        for ask in turn.asks:
            shown = self._archive.same(ask.show)
            self._questions.open(run, ask if shown is ask.show else msgspec.structs.replace(ask, show=shown))
        for id in turn.closed_asks:
            self._questions.shut(id, "closed")

    def _go(self, run: Run, turn: Turn) -> CommitResult:
        """The turn gives up its claim; its mail is sent, and what it leaves goes back."""
        left: list[Mail] = []
        if turn.status in ENDED and (run.inbox or run.box is not None):
            left = self._left(run, turn.status)
        result = self._leave(run, turn)
        for mail in turn.outbox:
            self._post.send(mail, turn.now, mark=True, stays=True)
        if run.finished and run.spec.parent is not None:
            self._post.send(end_mail(turn, run.spec.parent), turn.now, mark=False)
        if self._post.refused:
            self._post.give_back(turn.now)
        if left:
            for mail in left:
                self._lines.unclaim(run.id, mail.used)
            self._post.refused.append(refusal.left(left, run.id, run.status, turn.now))
        self._tell(run, turn)
        return result

    def _tell(self, run: Run, turn: Turn) -> None:
        """What others get of it: room, what was refused, mail at ports."""
        if self._post.refused:
            self._post.give_back(turn.now)
        if run.box is not None and (turn.consumed or turn.kept):
            self._post.make_room(run, run.box, turn)
        if self._hints.at_ports:
            self._hints.tell_ports()

    def _keep(self, run: Run, turn: Turn) -> None:
        """Its state; the journal so far is past."""
        if run.journal or run.digests:
            self._archive.shelve(run)
        if turn.checkpoint is not None:
            run.checkpoint, run.deltas = turn.checkpoint, None
        elif turn.delta is not None:
            if run.deltas is None:
                run.deltas = []
            if turn.replaces:
                del run.deltas[-turn.replaces :]
            run.deltas.append(turn.delta)

    def _take(self, run: Run, turn: Turn) -> None:
        """Letters that the turn is done with, or keeps for later."""
        if turn.kept and run.inbox:
            for letter in turn.kept:
                if letter in run.inbox:
                    run.inbox[letter] = msgspec.structs.replace(run.inbox[letter], kept=True)
        if turn.consumed and run.inbox:
            for letter in turn.consumed:
                run.inbox.pop(letter, None)
            if not run.inbox:
                run.inbox = None
        if run.box is not None:
            run.box.taken.difference_update(turn.consumed, turn.kept)

    def _left(self, run: Run, status: Status) -> list[Mail]:
        """Mail that nobody will take, taken out."""
        letters = run.inbox or {}
        kept = {id: letter for id, letter in letters.items() if refusal.is_kept(letter.mail, status)}
        run.inbox = kept or None
        left = [letter.mail for id, letter in letters.items() if id not in kept]
        return left if run.box is None else left + run.box.empty()

    def _leave(self, run: Run, turn: Turn) -> CommitResult:
        """The turn gives up its claim."""
        self._runs.let_go(run)
        run.updated, run.reason = turn.now, turn.reason
        if turn.status in ENDED:
            self._end(run, turn)
            self._budgets.give_back(run.id, self._lines.is_to_come)
            return "committed"
        self._budgets.give_back(run.id, self._lines.is_to_come, turn.wants)
        waits = turn.status in ("parked", "held")
        unseen = waits and run.inbox is not None and next(reversed(run.inbox)) > turn.seen
        unseen = unseen or (waits and bool(turn.wants) and self._budgets.missing(turn.wants))
        self._runs.move(run, "ready" if unseen else turn.status)
        if run.status == "ready":
            self._runs.enqueue(run)
        elif run.status == "parked" and turn.wake is not None:
            self._runs.set_timer(run, turn.wake)
        return "ready" if unseen else "committed"

    def _end(self, run: Run, turn: Turn) -> None:
        self._runs.end(run, turn)
        if run.value is not None:
            run.value = self._archive.same(run.value)
        for id in list(run.asks or ()):
            self._questions.shut(id, "closed")
        if run.lines:
            self._traffic.leave(run)
        self._hints.hint("ended", run.id)

    def give_back(self, run: str, now: float) -> None:
        """What a run has reserved that was held as poison."""
        self._budgets.give_back(run, self._lines.is_to_come)
        self._budgets.wake(now)

    def revive(
        self, run: str, pool: Pool | None, now: float, status: Sequence[Status], config: Config | None
    ) -> bool:
        """A run of such a status goes on."""
        known = self._runs.by_id.get(run)
        if known is None or known.status not in status:
            return False
        self._runs.take_back(known)
        self._budgets.give_back(run, self._lines.is_to_come)
        if pool is not None:
            self._archive.shelve(known)
            known.pool = self._archive.sharing(pool)
        if config is not None:
            known.spec = msgspec.structs.replace(known.spec, config=config)
        known.reason, known.value, known.error, known.lapses = "", None, None, 0
        known.finished, known.updated = 0, now
        self._runs.move(known, "ready")
        self._runs.enqueue(known)
        self._budgets.wake(now)
        return True
