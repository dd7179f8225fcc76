"""Questions to people and programs, in the store in memory."""

from __future__ import annotations

from collections.abc import Collection

from ...model.message import Mail, Question
from ...model.run import CallRef
from ...ports.store import AnswerResult
from .post import Post
from .run import Run
from .runs import Runs


class Questions:
    """Those that are open, and those that were."""

    def __init__(self, runs: Runs, post: Post) -> None:
        self._runs = runs
        self._post = post
        self._open: dict[str, Question] = {}
        self._asked: list[str | None] = []  # the ids, in order; those that are closed leave a gap
        self._place: dict[str, int] = {}  # in that, of those that are open
        self._shut: dict[str, tuple[Question, str]] = {}

    def open(self, run: Run, ask: Question) -> None:
        """Ask, perhaps once more."""
        if self._open.pop(ask.id, None) is not None:
            self._asked[self._place[ask.id]] = None
        self._shut.pop(ask.id, None)
        self._open[ask.id] = ask
        self._place[ask.id] = len(self._asked)
        self._asked.append(ask.id)
        if run.asks is None:
            run.asks = {}
        run.asks.pop(ask.id, None)
        run.asks[ask.id] = None

    def shut(self, id: str, state: str) -> Question | None:
        """Close an open question; None if it isn't open."""
        ask = self._open.pop(id, None)
        if ask is None:
            return None
        self._shut[id] = (ask, state)
        self._asked[self._place.pop(id)] = None
        run = self._runs.by_id.get(ask.run)
        if run is not None and run.asks is not None:
            run.asks.pop(id, None)
        return ask

    def lose(self, runs: Collection[str]) -> None:
        """These are removed, and had theirs closed when they ended."""
        self._shut = {id: one for id, one in self._shut.items() if one[0].run not in runs}

    def listed(self, to: str, run: str) -> list[Question]:
        """Those that are open."""
        if run:
            known = self._runs.by_id.get(run)
            found = [self._open[id] for id in known.asks or ()] if known else []
        else:
            found = list(self._open.values())
        return [ask for ask in found if not to or ask.to == to]

    def asked(self, after: int, to: str, limit: int) -> tuple[list[Question], int]:
        """Those of them that were asked later than that, and from where to go on."""
        found: list[Question] = []
        while after < len(self._asked) and len(found) < limit:
            id = self._asked[after]
            if id is not None and (not to or self._open[id].to == to):
                found.append(self._open[id])
            after += 1
        return found, after

    def get(self, ask: str) -> tuple[Question, str] | None:
        """One, and how it stands."""
        question = self._open.get(ask)
        return (question, "open") if question is not None else self._shut.get(ask)

    def answer(self, ask: str, value: bytes, now: float) -> AnswerResult:
        """Close one, and send its run the answer."""
        question = self.shut(ask, "answered")
        if question is None:
            return "closed" if ask in self._shut else "unknown"
        call = CallRef(question.run, question.path, question.n)
        mail = Mail(question.run, f"ask:{ask}", 1, "result", value=value, call=call, at=now)
        self._post.send(mail, now, mark=False)
        return "answered"
