"""Large contents, cut into pieces that others have too."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Callable
from time import process_time
from typing import Any

import msgspec
import pytest

from segue.core import contents
from segue.core.encoding import encode_stable
from segue.model.entry import BLOB
from segue.model.errors import Damaged

TEXT = 'é"\\ \n' * BLOB
MANY = list(range(BLOB))


def pieces(value: object) -> list[bytes]:
    """What is cut out of a value's JSON, which comes back as it was."""
    content = value if isinstance(value, bytes) else encode_stable(value)
    blobs: list[tuple[bytes, bytes]] = []
    stand = contents.cut(content, blobs)
    there = dict(blobs)
    assert set(contents.names_in(stand)) == there.keys()
    if len(content) > BLOB:
        assert contents.whole(stand, there) == content
    assert all(len(piece) > BLOB for _, piece in blobs)
    return [piece for _, piece in blobs]


def test_a_large_string_is_one_piece_wherever_it_stands() -> None:
    (piece,) = pieces(TEXT)
    assert pieces([[TEXT], {}]) == pieces({"messages": [{"content": TEXT, "n": 1}]}) == [piece]
    assert pieces({"a": TEXT, "b": ["short", TEXT]}) == [piece, piece]


def test_what_is_large_without_a_large_string_is_one_piece_alone_and_as_the_one_argument() -> None:
    (piece,) = pieces(MANY)
    assert pieces([[MANY], {}]) == [piece]
    assert pieces([[{"a": MANY, "b": TEXT}], {}]) == pieces({"a": MANY, "b": TEXT})


def test_what_a_question_shows_is_cut_by_itself() -> None:
    asked = {"question": "ok?", "schema": {}, "show": MANY, "to": "ann"}
    assert pieces(asked) == pieces(MANY)
    assert pieces({**asked, "show": {"a": TEXT}}) == pieces(TEXT)
    assert pieces({**asked, "question": TEXT, "show": None}) == pieces(TEXT)
    assert pieces({"question": TEXT}) == pieces(TEXT)
    assert len(pieces(b'{"question":' + b" no " * BLOB)) == 1


def test_each_large_string_is_found_and_nothing_else() -> None:
    chance = random.Random(3)
    string = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
    for _ in range(300):
        content = encode_stable([_any(chance, 3), [_text(chance) for _ in range(chance.randint(0, 5))], MANY])
        large = [found[0] for found in string.finditer(content) if len(found[0]) > BLOB]
        assert [piece for piece in pieces(content) if piece.startswith(b'"')] == large


def _text(chance: random.Random) -> str:
    part = chance.choice(["x", 'x"', "\\", '"\\', ",[", "é", "x" * 50 + '"'])
    length = BLOB * chance.choice([1, 2, 4, 12]) // 4 + chance.randint(-3, 3)
    return (part * length)[:length]


def test_small_pieces_stay() -> None:
    assert pieces("x" * (BLOB - 2)) == []
    assert len(pieces("x" * (BLOB - 1))) == 1
    stand = contents.cut(encode_stable({"a": TEXT, "b": "small"}), [])
    assert b"small" in stand
    assert len(stand) < 100


def test_whatever_it_is_it_comes_back_whole() -> None:
    chance = random.Random(7)
    for _ in range(300):
        alphabet = chance.choice(['"', '"\\', "[]{},:", 'ab"\\', "\u2028é"])
        raw = "".join(chance.choices(alphabet, k=chance.randint(0, 200))).encode()
        pieces(raw * chance.choice([1, 50, 500]))
        pieces(_any(chance, 3))


def _any(chance: random.Random, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.2:
        text = chance.choice(["", 'a"', "\\", "é\n", "x"]) * chance.choice([1, 1, 30, 5000])
        return chance.choice([text, chance.randint(-9, 9), None])
    if chance.random() < 0.5:
        return [_any(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    return {f"{chance.choice('ab')}{n}": _any(chance, depth - 1) for n in range(chance.randint(0, 4))}


def test_a_text_full_of_escapes_takes_no_memory_for_each() -> None:
    content = encode_stable('"' * 1_000_000)
    tracemalloc.start()
    try:
        contents.cut(content, [])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(content)


def test_to_look_for_large_strings_costs_little() -> None:
    for value in (["abc def"] * 200_000, ['x"\n' * 10] * 50_000, "x" * 2_000_000, list(range(300_000))):
        content = encode_stable(value)
        assert _cost(contents.cut, content, []) < 10 * _cost(contents.content_digest, content)


def test_a_string_without_an_end_is_gone_over_once() -> None:
    content = encode_stable('"' * 50_000)
    assert _cost(contents.cut, content[1:-1], []) < 20 * _cost(contents.cut, content, [])


def _cost(call: Callable[..., object], *args: object) -> float:
    def once() -> float:
        began = process_time()
        call(*args)
        return process_time() - began

    return min(once() for _ in range(3))


def test_a_piece_that_isnt_there_or_was_changed() -> None:
    blobs: list[tuple[bytes, bytes]] = []
    stand = contents.cut(encode_stable(TEXT), blobs)
    ((name, piece),) = blobs
    with pytest.raises(Damaged, match="missing"):
        contents.whole(stand, {})
    with pytest.raises(Damaged, match="digest"):
        contents.whole(stand, {name: piece[:-2] + b'."'})
    with pytest.raises(msgspec.DecodeError):
        contents.names_in(stand[:-1])
    for nothing in (b"\x90", b"\x91\xc4\x00"):  # lists of nothing, and of an empty text
        with pytest.raises(Damaged, match="large"):
            contents.whole(nothing, {})
