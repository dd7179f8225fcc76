"""What counts as a difference between two journals."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.core.codec import digest
from segue.model.entry import Entry, Failure
from segue.testing.compare import differences

ARGS = b'[["x"],{}]'


def call(path: str = "", n: int = 0, **changes: Any) -> Entry:
    args = changes.pop("args", ARGS)
    entry = Entry(path, n, "step", "work", digest(args), args, 0, 0, b"1", None, 5.0)
    return msgspec.structs.replace(entry, **changes)


A = [call(), call(n=1, value=b'"two"', after=1, batch=1), call("/f.0"), call("/f.1")]


def test_order_between_branches_times_and_batches_do_not_count() -> None:
    other = [call("/f.1", batch=3, at=9.0), call("/f.0", after=1), call(due=3.0), call(n=1, value=b'"two"')]
    assert differences(A, other) == []


def test_a_call_in_two_rows_is_one() -> None:
    made = call(batch=-1, value=None)
    assert differences([call()], [made, Entry("", 0, "", "", b"", b"", 0, 0, b"1", None, 7.0)]) == []


def test_what_was_given_up_does_not_count() -> None:
    assert differences([call()], [call(), call(n=1, batch=-1, value=None)]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'["at 2030-01-01T00:00:03.25+00:00"]', b'["at 2030-01-01 00:00:07Z"]'),
        (b"[1893456000.25]", b"[1893456001]"),
        (b'{"2030-01-01T00:00":1}', b'{"2030-01-01T00:01":1}'),
    ],
)
def test_times_in_values_do_not_count(one: bytes, other: bytes) -> None:
    assert differences([call(args=one, value=one)], [call(args=other, value=other)]) == []


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ([*A[:3]], ["call 0 of branch '/f.1': step 'work' in a, none in b"]),
        ([*A, call("/g.0")], ["call 0 of branch '/g.0': step 'work' in b, none in a"]),
        ([call(name="play"), *A[1:]], ["call 0 of branch '/': step 'work' in a, step 'play' in b"]),
        ([call(kind="ask", name="ask"), *A[1:]], ["call 0 of branch '/': step 'work' in a, ask in b"]),
        ([call(value=b"2"), *A[1:]], ["call 0 of branch '/', step 'work': it gave 1 in a, 2 in b"]),
        (
            [call(value=None, error=Failure("builtins:ValueError", "no")), *A[1:]],
            ["call 0 of branch '/', step 'work': it gave 1 in a, builtins:ValueError: no in b"],
        ),
        (
            [call(args=b'[["y"],{}]'), *A[1:]],
            ["call 0 of branch '/', step 'work': its arguments are [[\"x\"],{}] in a, [[\"y\"],{}] in b"],
        ),
        (
            [call(digest=b"other"), *A[1:]],
            ["call 0 of branch '/', step 'work': its arguments look alike, but their types don't"],
        ),
    ],
)
def test_differences(other: list[Entry], says: list[str]) -> None:
    assert differences(A, other, ("a", "b")) == says


def test_long_values_are_shown_where_they_part() -> None:
    one, other = b'"' + b"a" * 500 + b"bc" + b'"', b'"' + b"a" * 500 + b"xy" + b'"'
    (line,) = differences([call(value=one)], [call(value=other)])
    assert len(line) < 300
    assert 'aaabc" in the one' in line
    assert 'aaaxy" in the other' in line
