"""Rows of journals, large contents, and the difference between two calls."""

from __future__ import annotations

from segue.core import contents, journal
from segue.core.encoding import digest
from segue.model.entry import BLOB, GIVEN_UP, Entry, encode_entries

BIG = b'"' + b"x" * BLOB + b'"'


def test_large_contents_are_stored_once_and_come_back() -> None:
    entries = [Entry("", n, "step", "f", b"d", BIG, 0, n, BIG if n else b"1") for n in range(3)]
    blobs: list[tuple[bytes, bytes]] = []
    stored = [journal.store_large(entry, blobs) for entry in entries]
    assert len(set(blobs)) == 1
    row = encode_entries(stored)
    assert len(row) < 1000
    read = journal.read([row])
    assert set(journal.blobs_of(read)) == {blobs[0][0]}
    assert journal.load_large(read, dict(blobs)) == entries


def test_one_large_argument_is_the_same_content_as_the_value_that_it_was() -> None:
    entries = [
        Entry("", 0, "step", "make", b"d", b"[[1],{}]", 0, 0, BIG),
        Entry("", 1, "step", "pass_on", b"d", b"[[" + BIG + b"],{}]", 0, 1, BIG),
        Entry("", 2, "step", "named", b"d", b'[[],{"text":' + BIG + b"}]", 0, 2, b"1"),
    ]
    blobs: list[tuple[bytes, bytes]] = []
    stored = [journal.store_large(entry, blobs) for entry in entries]
    assert sum(len(content) for content in dict(blobs).values()) < 2.1 * len(BIG)  # the one by name is apart
    read = journal.read([encode_entries(stored)])
    assert set(journal.blobs_of(read)) == dict(blobs).keys()
    assert journal.load_large(read, dict(blobs)) == entries


def test_arguments_that_were_stored_as_one_content_are_read() -> None:
    args = b"[[" + BIG + b"],{}]"
    whole = contents.content_digest(args)
    stored = Entry("", 0, "step", "f", b"d", whole, 0, 0, b"1", args_blob=True)
    assert journal.blobs_of([stored]) == [whole]
    assert journal.load_large([stored], {whole: args})[0].args == args


def test_small_contents_stay_in_place() -> None:
    entry = Entry("", 0, "step", "f", b"d", b"[1]", 0, 0, b"2")
    blobs: list[tuple[bytes, bytes]] = []
    assert journal.store_large(entry, blobs) is entry
    assert not blobs


def test_a_row_that_has_the_arguments_needs_no_digest_of_them() -> None:
    short = Entry("", 0, "step", "f", b"", b"[[1],{}]", 0, 0, b"2")
    other = Entry("", 1, "urgent", "urgent", b"", b"{}", 0)  # checked by its name alone
    (read, same) = journal.read([encode_entries([short, other])])
    assert read.digest == digest(b"[[1],{}]")
    assert same == other


def test_a_row_whose_arguments_are_what_the_call_before_gave_lacks_them() -> None:
    given, args = b'{"a":1}', b'[[{"a":1}],{}]'
    assert journal.around(given) == args
    rows = [
        Entry("", 1, "step", "f", b"", b"[[],{}]", 0, 0, given),
        Entry("/g.0", 0, "step", "f", b"", b"[[],{}]", 0, 0, b"2"),
        Entry("", 0, "step", "given up", b"d", b"[[],{}]", 0, GIVEN_UP, b"5"),  # and came late
        Entry("", 2, "step", "f", b"", b"", 1, 1, b"3"),
        Entry("", 4, "step", "f", b"", b"", 1, 1, b"4"),  # the one before was dropped with past turns
    ]
    read = journal.read(encode_entries([entry]) for entry in rows)
    assert [entry.args for entry in read] == [b"[[],{}]", b"[[],{}]", b"[[],{}]", args, b"[[null],{}]"]
    assert [entry.digest for entry in read if entry.name == "f"] == [
        digest(entry.args) for entry in read if entry.name == "f"
    ]


def test_the_difference_shows_the_line_and_the_cure() -> None:
    text = journal.difference(b'{"prompt":"At 10:31 say hi","n":1}', b'{"prompt":"At 10:32 say hi","n":1}')
    assert "10:31" in text
    assert "10:32" in text
    assert '"n"' not in text
    assert "segue.now()" in text


def test_the_difference_of_words_names_no_clock() -> None:
    text = journal.difference(b'["positive"]', b'["gloomy"]')
    assert "segue.now()" not in text
    assert "positive" in text


def test_long_differences_are_cut() -> None:
    old = b"[" + b",".join(b"%d" % n for n in range(100)) + b"]"
    new = b"[" + b",".join(b"%d" % (n + 1000) for n in range(100)) + b"]"
    assert len(journal.difference(old, new)) < 2000
    assert "more lines" in journal.difference(old, new)
