"""Which recorded outcomes fit changed code."""

from __future__ import annotations

from collections.abc import Callable

from segue.core.homes import ELSEWHERE
from segue.core.pool import Pooled
from segue.model.entry import GIVEN_UP, Entry, Pool


def entry(n: int, name: str, digest: bytes, *, path: str = "") -> Entry:
    return Entry(path, n, "step", name, digest, b"", 0, n, str(n).encode())


OLD = [entry(0, "f", b"a"), entry(1, "g", b"b"), entry(2, "f", b"a"), entry(3, "f", b"c")]


def take(pool: Pooled, n: int, name: str, digest: bytes, path: str = "") -> bytes | None:
    found = pool.take(path, n, "step", name, digest)
    return None if found is None else found.value


def test_strict_matches_by_name_and_digest_in_order_once() -> None:
    pool = Pooled(Pool(OLD))
    assert take(pool, 7, "f", b"a") == b"0"
    assert take(pool, 8, "f", b"a") == b"2"
    assert take(pool, 9, "f", b"a") is None
    assert take(pool, 1, "g", b"x") is None
    assert take(pool, 1, "g", b"b", path="/other.0") is None
    assert [e.n for e in pool.unused()] == [1, 3]


def test_keep_takes_the_same_name_at_the_same_place_first() -> None:
    pool = Pooled(Pool(OLD, strict=False))
    assert take(pool, 2, "f", b"changed") == b"2"
    assert take(pool, 9, "f", b"changed") == b"0"
    assert take(pool, 9, "f", b"changed") == b"3"
    assert take(pool, 9, "f", b"changed") is None
    assert take(pool, 1, "g", b"changed") == b"1"


def test_keep_takes_model_calls_in_their_order_wherever_they_stand() -> None:
    """They are all called alike, so at a place that others moved stands another one."""
    asked = [Entry("", n, "generate", "generate", b"%d" % n, b"", 0, n, b"%d" % n) for n in range(3)]
    pool = Pooled(Pool(asked, strict=False))
    found = [pool.take("", n, "generate", "generate", b"changed") for n in (1, 3, 4)]
    assert [entry and entry.value for entry in found] == [b"0", b"1", b"2"]
    pool = Pooled(Pool(asked, strict=False))
    found = [
        pool.take("", n, "generate", "generate", digest)
        for n, digest in ((0, b"1"), (1, b"changed"), (2, b"x"))
    ]
    assert [entry and entry.value for entry in found] == [b"1", b"2", None], (
        "what was left out in front is nobody's"
    )


def test_keep_takes_no_other_calls_outcome_from_the_place() -> None:
    pool = Pooled(Pool(OLD, strict=False))
    assert take(pool, 1, "f", b"changed") == b"0"
    assert take(pool, 5, "g", b"changed") == b"1"


def find(pool: Pooled, n: int, name: str, digest: bytes) -> bytes | None:
    found = pool.find("", n, "step", name, digest, b"")
    return None if found is None else found.value


def test_what_the_next_call_is_to_take_is_kept_for_it() -> None:
    pool = Pooled(Pool(OLD))
    assert [find(pool, n, "f", b"a") for n in (7, 7, 8, 9)] == [b"0", b"0", b"2", None]
    assert [take(pool, n, "f", b"a") for n in (9, 8, 7)] == [None, b"2", b"0"]


def test_another_call_that_is_made_there_after_all_takes_its_own() -> None:
    pool = Pooled(Pool(OLD, strict=False))
    assert find(pool, 1, "f", b"c") == b"3"
    assert find(pool, 2, "f", b"c") == b"2", "of that name, where it stood"
    assert take(pool, 1, "g", b"b") == b"1"
    assert take(pool, 3, "f", b"c") == b"3", "it isn't kept for the first any more"


def test_what_was_given_up_comes_when_it_was_given_up() -> None:
    """Its outcome is had then, where code that goes another way waits for it."""
    late = Entry("", 4, "step", "f", b"d", b"", 1, GIVEN_UP - 2, b"4")
    pool = Pooled(Pool([late, *OLD]))
    found = sorted((pool.take("", e.n, "step", e.name, e.digest) for e in (late, *OLD)), key=in_order(pool))
    assert [e.n for e in found if e is not None] == [0, 1, 4, 2, 3]


def in_order(pool: Pooled) -> Callable[[Entry | None], tuple[int, int]]:
    return lambda entry: (-1, -1) if entry is None else pool.order(entry)


def test_an_unused_outcome_of_the_same_name_blocks() -> None:
    pool = Pooled(Pool(OLD))
    assert pool.blocks("", "g")
    take(pool, 1, "g", b"b")
    assert not pool.blocks("", "g")


def test_what_waited_waits_until_somebody_takes_it() -> None:
    made = Entry("", 4, "ask", "ask", b"d", b"", 4, opened=("", 3))
    pool = Pooled(Pool([*OLD, made]))
    assert pool.waits("", 3), "what comes for it comes by its opening"
    assert not pool.waits("", 4), "it isn't known by where it stood last"
    assert not pool.waits("", 0), "it had its outcome"
    assert pool.take("", 4, "ask", "ask", b"d") == made
    assert not pool.waits("", 3)


def test_what_gets_another_place_keeps_its_opening() -> None:
    made = Entry("", 4, "ask", "ask", b"d", b"", 4)
    again = Entry("", 5, "ask", "ask", b"e", b"", 4, opened=("", 2))
    first, second = Pooled(Pool([made, again])).unused([("", 4), ("", 5)])
    assert (first.n, first.opening) == (4 + ELSEWHERE, ("", 4))
    assert (second.n, second.opening) == (5 + ELSEWHERE, ("", 2))


def test_branches_that_ask_alike_are_found_in_the_order_in_which_they_were_begun() -> None:
    """Not in that of their outcomes, as the journal has them."""
    old = [
        Entry(f"/one.{n}", 0, "step", "f", b"a", b"", 0, 20 - n, str(n).encode()) for n in reversed(range(12))
    ]
    pool = Pooled(Pool(old))
    assert [take(pool, 0, "f", b"a", path=f"/one.{n}") for n in (12, 13, 14)] == [b"0", b"1", b"2"]


def test_with_keep_a_call_of_another_branch_says_nothing_of_places() -> None:
    old = [
        entry(0, "f", b"a", path="/one.0"),
        entry(1, "f", b"b", path="/one.0"),
        entry(2, "f", b"c", path="/one.0"),
        entry(5, "f", b"d", path="/one.1"),
    ]
    pool = Pooled(Pool(old, strict=False))
    assert take(pool, 0, "f", b"a", path="/one.0") == b"0"
    assert take(pool, 1, "f", b"d", path="/one.0") == b"5", "as it was asked elsewhere"
    assert take(pool, 2, "f", b"changed", path="/one.0") == b"2", "where it stood"


def test_an_opening_of_another_kind_of_call_is_another_one() -> None:
    """What goes to a model live isn't known by its place, so a batch line may be opened there."""
    live = Entry("", 2, "generate", "generate", b"a", b"", 0, 1, b"1")
    asked = Entry("", 5, "ask", "ask", b"b", b"", 0, opened=("", 2))
    pool = Pooled(Pool([live, asked]))
    pool.spend([Entry("", 7, "generate", "generate", b"a", b"", 0, 1, b"1", opened=("", 2))])
    assert [each.kind for each in pool.unused()] == ["ask"]
