"""Runs as JSON lines and back."""

from __future__ import annotations

import pytest

from segue.core import export, journal
from segue.core.codec import digest
from segue.model.entry import INSTANT, MADE, Entry, Failure
from segue.model.errors import InvalidValue
from segue.model.mode import Batch, Config
from segue.model.run import CallRef, Head, Spec, Usage

ARGS = b'[{"a":1},"x"]'
FAILURE = Failure("builtins:ValueError", "no", b'["no"]', True)


def head(**changes: object) -> Head:
    spec = Spec(
        "flow",
        "triage",
        b'[["x"],{}]',
        Config(mode=Batch(), model=("openai:m",), tags={"a": "b"}),
        version="abc",
        python="3.11",
        parent=CallRef("p", "/a.0", 3),
        job="j",
        index=4,
        key="k",
        created=12.5,
    )
    usage = [Usage("openai:m", "batch", 1, 2, 3, 4)]
    return Head(**{"id": "r", "spec": spec, "status": "done", "value": b"null", "usage": usage, **changes})  # type: ignore[arg-type]


def entries() -> list[Entry]:
    return [
        Entry("", 0, "step", "s", digest(ARGS), ARGS, 0, 0, b'"v"', None, 5.0),
        Entry("", 1, "ask", "ask", digest(ARGS), ARGS, 1, due=77.0),
        Entry("/f.0", 0, "ask", "ask", digest(b"1"), b"1", 1),
        Entry("/f.0", 1, "tell", "M", digest(b"2"), b"2", 1, INSTANT, b"null"),
        Entry("/f.0", 0, "", "", b"", b"", 1, 1, b"2", None, 6.0),
        Entry("", 1, "", "", b"", b"", 1, 1, None, FAILURE, 6.0),
        Entry("!cancel", 0, "cancel", "cancel", b"", b"", 2, 2, b"null", None, 7.0),
        Entry("", 2, "sleep", "sleep", digest(b"3"), b"3", 2, MADE, due=99.0),
    ]


@pytest.mark.parametrize(
    "run",
    [head(), head(status="failed", value=None, error=FAILURE), head(status="held", value=None, reason="why")],
)
def test_there_and_back(run: Head) -> None:
    lines = [*export.write(run, entries())]
    assert len(lines) == 7
    read = export.read([line.decode() + "\n" for line in lines])
    assert read.head == run
    assert read.entries == journal.merged(entries())
    assert [*export.write(read.head, read.entries)] == lines


def test_the_order_is_that_of_the_outcomes() -> None:
    assert [(entry.path, entry.n) for entry in journal.merged(entries())] == [
        ("", 0),
        ("/f.0", 1),
        ("/f.0", 0),
        ("", 1),
        ("!cancel", 0),
        ("", 2),
    ]


@pytest.mark.parametrize("bad", ["", "{}", '{"run": {}}', "no JSON"])
def test_what_is_no_export(bad: str) -> None:
    with pytest.raises(InvalidValue, match="here"):
        export.read([bad], where="here")


def test_the_line_is_named() -> None:
    lines = [*export.write(head(), entries())]
    with pytest.raises(InvalidValue, match="line 3"):
        export.read([*lines[:2], b"{}"])


def test_an_export_of_a_newer_version_is_refused() -> None:
    first, *calls = export.write(head(), entries())
    newer = first.replace(b'"id":', b'"format":2,"id":', 1)
    with pytest.raises(InvalidValue, match=r"line 1.*has format 2, of a newer segue"):
        export.read([newer, *calls])


def test_a_journal_that_was_cut() -> None:
    lines = [*export.write(head(), entries())]
    with pytest.raises(InvalidValue, match=r"call 2 of branch '/' comes after batch 1"):
        export.read([line for line in lines if b"cancel" not in line and b'"batch":1' not in line])
