"""The checker of histories finds what is wrong with one."""

from __future__ import annotations

from copy import deepcopy

from segue.testing.history import faults

SENT = {"a": [("b", 1), ("c", 2), ("b", 3), ("a", 4)], "b": [("a", 1), ("a", 2), ("c", 3)], "c": []}
HANDLED = {"a": [("b", 1), ("a", 4), ("b", 2)], "b": [("a", 1), ("a", 3)], "c": [("b", 3), ("a", 2)]}


def test_a_right_history() -> None:
    assert faults(SENT, HANDLED) == []
    assert faults({}, {}) == []


def test_other_orders_of_several_senders_are_right_too() -> None:
    assert faults(SENT, {**HANDLED, "a": [("a", 4), ("b", 1), ("b", 2)]}) == []


def test_lost() -> None:
    handled = deepcopy(HANDLED)
    handled["b"].remove(("a", 3))
    assert faults(SENT, handled) == ["3 of a to b was lost"]
    assert len(faults(SENT, {})) == 7


def test_doubled() -> None:
    handled = deepcopy(HANDLED)
    handled["b"].append(("a", 1))
    assert faults(SENT, handled) == ["b handled 1 of a more than once"]


def test_reordered() -> None:
    handled = deepcopy(HANDLED)
    handled["b"].reverse()
    assert faults(SENT, handled) == ["b handled 1 of a after 3, which was sent later"]


def test_handled_by_the_wrong_one() -> None:
    handled = deepcopy(HANDLED)
    handled["c"].append(handled["b"].pop())
    wrong = faults(SENT, handled)
    assert wrong == ["c handled 3 of a, which was sent to b", "3 of a to b was lost"]


def test_handled_by_a_wrong_one_besides() -> None:
    handled = deepcopy(HANDLED)
    handled["c"].insert(0, ("a", 1))
    assert faults(SENT, handled) == ["c handled 1 of a, which was sent to b"]


def test_never_sent() -> None:
    handled = deepcopy(HANDLED)
    handled["c"].append(("a", 9))
    assert faults(SENT, handled) == ["c handled 9 of a, which never was sent"]


def test_numbers_must_be_a_senders_own() -> None:
    assert faults({"a": [("b", 1), ("b", 1)]}, {"b": [("a", 1)]}) == ["a sent two messages with number 1"]
