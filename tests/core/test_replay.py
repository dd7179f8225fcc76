"""What a journal demands, without any event loop."""

from __future__ import annotations

import pytest

from segue.core.replay import Differs, Replay
from segue.model.entry import INSTANT, MADE, Entry


def entry(path: str, n: int, after: int, batch: int, *, name: str = "f", value: bytes | None = b"1") -> Entry:
    return Entry(path, n, "step", name, b"d", b"[]", after, batch, value, at=10.0 + batch)


def made(path: str, n: int, after: int) -> Entry:
    return Entry(path, n, "step", "f", b"d", b"[]", after)


def closed(path: str, n: int, batch: int) -> Entry:
    return Entry(path, n, "", "", b"", b"", 0, batch, b"2", at=10.0 + batch)


def make(replay: Replay, path: str, n: int) -> Entry | None:
    return replay.made(path, n, "step", "f", b"d")


def test_an_empty_journal_is_live_at_once() -> None:
    replay = Replay([], 5.0)
    assert replay.live
    assert replay.complete
    assert replay.next_batch() is None
    assert replay.time == 5.0


def test_a_batch_waits_for_every_call_made_before_it() -> None:
    replay = Replay([entry("a", 0, 0, 0), entry("b", 0, 0, 1)], 0.0)
    make(replay, "a", 0)
    assert replay.next_batch() is None, "b was made before the first batch, the first time"
    make(replay, "b", 0)
    assert [e.path for e in replay.next_batch() or []] == ["a"]
    assert not replay.live
    assert [e.path for e in replay.next_batch() or []] == ["b"]
    assert replay.live
    assert replay.time == 11.0


def test_a_call_made_later_holds_up_later_batches_only() -> None:
    replay = Replay([entry("a", 0, 0, 0), entry("a", 1, 1, 1)], 0.0)
    make(replay, "a", 0)
    assert replay.next_batch()
    assert replay.next_batch() is None
    make(replay, "a", 1)
    assert replay.next_batch()


def test_a_batch_keeps_the_order_of_its_outcomes() -> None:
    """Not that of the calls: b's outcome came before a's, though a was made first."""
    replay = Replay([made("a", 0, 0), made("b", 0, 0), closed("b", 0, 0), closed("a", 0, 0)], 0.0)
    make(replay, "a", 0)
    make(replay, "b", 0)
    batch = replay.next_batch()
    assert batch is not None
    assert [(e.path, e.value, e.name) for e in batch] == [("b", b"2", "f"), ("a", b"2", "f")]


def test_a_call_without_outcome_holds_up_what_came_after_it() -> None:
    replay = Replay([made("a", 0, 0), entry("b", 0, 0, 0)], 0.0)
    make(replay, "b", 0)
    assert replay.next_batch() is None
    known = make(replay, "a", 0)
    assert known is not None
    assert known.batch == MADE
    assert replay.next_batch()
    assert replay.live
    assert replay.complete


def test_instant_calls_are_in_no_batch_but_must_be_made() -> None:
    replay = Replay([entry("a", 0, 0, INSTANT), entry("a", 1, 0, 0)], 0.0)
    make(replay, "a", 1)
    assert replay.next_batch() is None
    make(replay, "a", 0)
    assert len(replay.next_batch() or []) == 1


@pytest.mark.parametrize("call", [("model", "f", b"d"), ("step", "g", b"d"), ("step", "f", b"x")])
def test_another_call_at_the_place_differs(call: tuple[str, str, bytes]) -> None:
    replay = Replay([entry("a", 0, 0, 0)], 0.0)
    with pytest.raises(Differs) as caught:
        replay.made("a", 0, *call)
    assert caught.value.entry.path == "a"


def test_what_was_not_made_again_is_named() -> None:
    replay = Replay([entry("a", 0, 0, 0), entry("b", 0, 0, 1)], 0.0)
    make(replay, "a", 0)
    assert not replay.complete
    assert [e.path for e in replay.lacking({("a", 0)})] == ["b"]


def test_new_batches_go_on_from_the_old() -> None:
    replay = Replay([entry("a", 0, 0, 0)], 0.0)
    make(replay, "a", 0)
    replay.next_batch()
    replay.hand_over(99.0)
    assert (replay.handed, replay.time) == (2, 99.0)
    assert replay.live
