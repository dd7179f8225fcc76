"""Lines that ask the same, in the store in memory: who is answered by what came of another."""

from __future__ import annotations

import msgspec

from ...model.entry import Failure
from ...model.lane import LIVE, Answer, Line, LineOutcome, LineStatus
from ...model.message import Mail
from ...model.run import REUSED, Usage
from .. import asking
from .answers import Answers, by_number
from .hints import Hints
from .lane import LineRecord
from .lines import Lines
from .post import Post


class Sharing:
    """Who hands on answers, and places in a lane."""

    def __init__(self, lines: Lines, answers: Answers, post: Post, hints: Hints) -> None:
        self._lines = lines
        self._answers = answers
        self._post = post
        self._hints = hints

    def is_spared(self, line: LineRecord, put: Line) -> bool:
        """Whether a new line needn't be sent: it was answered before, or follows one that asks the same."""
        answer = self._answers.find(put.same, put.since)
        if answer is not None:
            self._give(line, "ok", answer.value, None, put.created, number=put.attempt)
            return True
        leader = self._answers.leader(line)
        if leader is None:
            self._answers.lead(line)
            return False
        self._answers.follow(line)
        line.status, line.line = "following", msgspec.structs.replace(line.line, body=b"")
        sooner = asking.is_sooner(line.line, leader.line.due)
        if sooner:
            leader.line = msgspec.structs.replace(leader.line, due=line.line.due, late="live")
        if leader.unwanted or sooner:
            leader.deserted = leader.deserted or leader.unwanted
            leader.unwanted = False
            self._lines.lane(leader.line.lane).dues_again(leader)
        return True

    def keep(self, answer: Answer) -> None:
        """Keep an answer, and give it to the lines that wait for one."""
        self._answers.keep(answer)
        waiting = [line for line in self._answers.leaders(answer.same) if line.status == "waiting"]
        for line in sorted([*waiting, *self._answers.followers(answer.same)], key=by_number):
            self._give(line, "ok", answer.value, None, answer.at)
        self.abandon(answer.same)

    def share(
        self, line: LineRecord, outcome: LineOutcome, now: float, *, quits: bool, claimed: bool
    ) -> None:
        """What the outcome of a line is to others that ask the same. `claimed`: its own run gets it."""
        same = line.line.same
        missed = (
            outcome.status == "expired" and not quits and self._lines.batches[line.batch].job.remote == LIVE
        )
        whole = outcome.whole and not quits
        self._answers.leave(line)
        others = self._answers.leaders(same)
        takers = self._answers.followers(same)
        if whole:
            self._answers.keep(Answer(same, outcome.value or b"null", now))
            takers = sorted([*takers, *(each for each in others if each.status == "waiting")], key=by_number)
        elif missed:
            takers = [each for each in takers if each.line.late == "fail" and 0 < each.line.due <= now]
        elif quits or others:
            takers = []
        for taker in takers:
            lane, used = (REUSED, None) if claimed else (outcome.lane, outcome.used)
            claimed = claimed or not taker.deserted
            self._give(taker, outcome.status, outcome.value, outcome.error, now, lane, used=used)
        if quits or missed:
            self._succeed(line)
        elif not claimed:
            self._lines.claims_nothing(line.line.call.run, outcome)

    def _give(
        self,
        line: LineRecord,
        status: LineStatus,
        value: bytes | None,
        error: Failure | None,
        now: float,
        lane: str = REUSED,
        *,
        number: int = 0,
        used: Usage | None = None,
    ) -> None:
        """A line ends with what came of another one."""
        if line.status == "waiting" and self._answers.leads(line):
            self._lines.lane(line.line.lane).leave(line)
        call, sender = line.line.call, f"line:{line.line.id}"
        self._lines.settle(line, status)
        self._answers.leave(line)
        self._lines.forget(line)
        if not line.deserted:
            number = number or line.line.attempt
            mail = Mail(
                call.run,
                sender,
                number,
                "result",
                lane,
                value=value,
                error=error,
                call=call,
                at=now,
                used=used,
            )
            self._post.send(mail, now, mark=False)

    def leave_others(self, line: LineRecord) -> None:
        """A line is about to end, or has been cancelled, without what others wait for."""
        if line.line.same:
            self._answers.leave(line)
            if line.status == "waiting":
                self._succeed(line)
            self.abandon(line.line.same)

    def _succeed(self, line: LineRecord) -> None:
        """The first that follows a line takes its place, unless one like it goes on."""
        same = line.line.same
        followers = self._answers.followers(same)
        if followers and not self._answers.leaders(same):
            heir = followers[0]
            self._answers.leave(heir)
            self._answers.lead(heir)
            heir.status = "waiting"
            attempt, body = line.line.attempt, line.line.body
            heir.line = msgspec.structs.replace(heir.line, body=body, attempt=attempt)
            self._lines.lane(heir.line.lane).put(heir)
            self._hints.hint("lines", heir.line.lane)

    def abandon(self, same: str) -> None:
        """Lines that only waited for the sake of others needn't where there are none any more."""
        if not self._answers.has_followers(same):
            for leader in self._answers.leaders(same):
                if leader.deserted:
                    self._abandon(leader)

    def _abandon(self, line: LineRecord) -> None:
        """Nobody waits for a line any more."""
        if line.status == "taken":
            line.unwanted, line.deserted = True, False
        else:
            self._lines.lane(line.line.lane).leave(line)
            self._lines.settle(line, "cancelled")
            self._answers.leave(line)
            self._lines.forget(line)
