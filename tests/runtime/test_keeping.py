"""What a run keeps: found by what it is about, at a cost that what else is kept doesn't add to."""

from __future__ import annotations

from typing import Any

import msgspec

from segue.model.message import Letter, Mail, MailKind
from segue.model.run import CallRef
from segue.runtime.wake.keeping import MOST, Keeping


class _Box:
    """Takes letters out, as a mailbox does."""

    def __init__(self) -> None:
        self.keeping: Any = None
        self.out: list[int] = []
        self.hand = 0

    def letter(self, id: int) -> None:
        """None is in hand."""

    def take_out(self, letter: int) -> None:
        self.out.append(letter)
        known = self.keeping.pop(letter)
        if known is not None and known.mail.kind == "subscribe":
            self.keeping.left(known)


class _Run:
    callers = ("asker",)
    time = 0.0

    def now(self) -> float:
        return self.time


def _keeping() -> tuple[Keeping, _Box]:
    box, run = _Box(), _Run()
    box.keeping = keeping = Keeping(run, box)  # type: ignore[arg-type]  # all that is asked for
    return keeping, box


def _letter(id: int, kind: MailKind, name: str = "", key: str = "", *callers: str) -> Letter:
    mail = Mail("a", f"b{id}", id, kind, name, reply=CallRef("b", "", id), callers=callers, key=key)
    return Letter(id, mail, kept=True)


def _subscribed(keeping: Keeping, id: int, name: str, key: str) -> None:
    letter = _letter(id, "subscribe", name, key, "b")
    keeping.came(letter)
    keeping.keep(letter)


def test_subscriptions_by_name_and_key() -> None:
    keeping, box = _keeping()
    for id, name, key in ((1, "A", "x"), (2, "B", "y"), (3, "A", "z"), (4, "A", "x")):
        _subscribed(keeping, id, name, key)
    assert [mail.number for mail in keeping.subscribers("A")] == [1, 3, 4]
    keeping.unsubscribe("x")
    keeping.unsubscribe("x")
    keeping.unsubscribe("unknown")
    assert box.out == [1, 4]
    assert [mail.number for mail in keeping.subscribers("A")] == [3]
    assert [mail.number for mail in keeping.subscribers("B")] == [2]
    keeping.unsubscribe("y")
    keeping.unsubscribe("z")
    assert not keeping


def test_ending_one_looks_at_no_other() -> None:
    """It was gone over all, so to end n took n² looks."""
    keeping, _ = _keeping()
    for id in range(1, 1001):
        _subscribed(keeping, id, "A", f"k{id}")
    looks = 0

    class Looked(dict[int, Letter]):
        def values(self) -> Any:
            nonlocal looks
            looks += len(self)
            return super().values()

    keeping._kept = Looked(keeping._kept)
    for id in range(1, 1001):
        keeping.unsubscribe(f"k{id}")
    assert not keeping
    assert looks == 0


def test_who_waits_for_what_is_kept() -> None:
    keeping, box = _keeping()
    assert keeping.callers() == ("asker",)
    assert keeping.callers(kept_only=True) == ()
    keeping.keep(_letter(1, "request", "", "", "one", "two"))
    keeping.keep(_letter(2, "request", "", "", "one", "three"))
    _subscribed(keeping, 3, "A", "x")  # waits for nothing any more
    assert keeping.callers(kept_only=True) == ("one", "two", "three")
    assert keeping.callers() == ("one", "two", "three", "asker")
    keeping.release(1)
    assert box.out == [1]
    assert keeping.callers(kept_only=True) == ("one", "three")
    keeping.release(2)
    assert keeping.callers() == ("asker",)


def test_who_has_given_up_waits_no_more() -> None:
    keeping, _ = _keeping()
    run: Any = keeping._run
    for id, until in ((1, 20.0), (2, 10.0), (3, 0.0)):
        mail = msgspec.structs.replace(_letter(id, "request", "", "", "all", f"run{id}").mail, until=until)
        keeping.keep(Letter(id, mail, kept=True))
    for run.time, waiting in ((9.0, {1, 2, 3}), (10.0, {1, 3}), (30.0, {3})):
        assert set(keeping.callers(kept_only=True)) == {"all", *(f"run{id}" for id in waiting)}
    for id in (1, 2):
        keeping.pop(id)
    assert keeping.callers(kept_only=True) == ("all", "run3")
    keeping.pop(3)
    assert keeping.callers(kept_only=True) == ()
    assert not keeping


def test_so_many_callers_travel_at_most() -> None:
    """Each request of a run that keeps n had n names with it."""
    keeping, _ = _keeping()
    for id in range(1, MOST * 2):
        keeping.keep(_letter(id, "request", "", "", f"run{id}"))
    assert len(keeping.callers()) == MOST + 1
    assert keeping.callers()[-1] == "asker"
