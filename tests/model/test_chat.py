"""Prompts as messages, and files in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.core.codec import decode, encode
from segue.model.chat import File, Message, as_messages


def test_a_file_from_a_path_holds_its_content(tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    path.write_bytes(b"ABC")
    file = File(str(path))
    assert (file.media, file.data, file.name, file.url) == ("image/png", "QUJD", "chart.png", "")
    path.unlink()
    assert decode(encode(file), File) == file


def test_a_file_from_bytes_or_a_url() -> None:
    assert File(b"ABC", media="audio/mpeg").data == "QUJD"
    assert File(b"ABC").media == "application/octet-stream"
    file = File("https://x/y.png")
    assert (file.url, file.media, file.data) == ("https://x/y.png", "image/png", "")
    assert decode(encode(file), File) == file


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        File(str(tmp_path / "none.png"))


def test_loose_parts_side_by_side_are_one_message() -> None:
    file = File(b"ABC")
    assert as_messages("hi") == [Message("user", "hi")]
    assert as_messages(["look", file]) == [Message("user", ["look", file])]
    system = Message("system", "be short")
    assert as_messages([system, "a", "b"]) == [system, Message("user", ["a", "b"])]
    assert as_messages(["a", system, "b"]) == [Message("user", "a"), system, Message("user", "b")]
