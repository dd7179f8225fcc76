"""One line of how a job stands."""

from __future__ import annotations

from segue.cli.tally import Standing, Tally, in_words
from segue.model.budget import Limit
from segue.model.budget import Standing as Budgeted
from segue.stores import open_store


def test_who_waits_for_room_waits_for_no_person() -> None:
    standing = Standing(total=9, parked=8, lines=2)
    tally = Tally(open_store("memory:"), "j")
    assert "2 waiting for batch · 6 waiting for people or time" in in_words(standing, tally, None, "")
    tally.budgets = [Budgeted("job:j", Limit(tokens=100), waiting=5)]
    words = in_words(standing, tally, None, "")
    assert "5 waiting for room in the budget · 1 waiting for people or time" in words
    tally.budgets = [Budgeted("job:j", Limit(tokens=100), waiting=7)]
    assert "people" not in in_words(standing, tally, None, "")
