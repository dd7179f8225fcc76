"""What stands on the terminal."""

from __future__ import annotations

import sys

import pytest

from segue.cli.screen import breadth, note, short, table, visible
from tests.cli.desk import Desk


def test_text_of_others_cant_steer_the_terminal() -> None:
    assert visible("plain, ünïcode 日本\n\ttext") == "plain, ünïcode 日本\n\ttext"
    assert visible("a\x1b[2Jb\rc\x9b1md\u202ee") == r"a\x1b[2Jb\rc\x9b1md\u202ee"


def test_notes_and_tables_are_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    note("Send \x1b[8mall\x1b[0m of it?")
    table(["WHAT"], [["\x1b]0;title\x07"]])
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert r"\x1b[8mall" in said.err


ASKS = """
import segue

@segue.flow
async def pay(mail: str) -> str:
    ok = await segue.ask("Pay what this mail says?", show=mail, returns=bool)
    return mail if ok else "no"
"""


def test_a_question_hides_nothing_from_who_answers(desk: Desk) -> None:
    desk.write("pay.py", ASKS)
    said = desk.segue("run", "pay.py:pay", "9 EUR\x1b[1A\x1b[2K1 EUR", "--id", "the mail's; ls")
    assert r"9 EUR\x1b[1A\x1b[2K1 EUR" in said.err
    assert r"9 EUR\x1b[1A" in desk.segue("runs", "--asks").out
    assert "segue answer 'the mail'\"'\"'s; ls:0'" in said.err
    assert desk.segue("answer", "the mail's; ls", "y").code == 0
    assert (
        desk.segue("run", "pay.py:pay", "--id", "the mail's; ls").out == "9 EUR\x1b[1A\x1b[2K1 EUR\n"
    )  # no terminal


def stand_at_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Without colours."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))


def test_a_last_column_without_room_stands_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_at_a_terminal(monkeypatch, 40)
    rows = [["a" * 30, "Shall we?"], ["b", ""]]
    table(["ID", "QUESTION"], rows)
    assert capsys.readouterr().out.splitlines() == ["ID", "    QUESTION", "a" * 30, "    Shall we?", "b"]
    table(["ID", "N"], rows, right="N")
    assert capsys.readouterr().out.splitlines()[1].startswith("a" * 30 + "  Shall")


def test_numbers_are_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_at_a_terminal(monkeypatch, 30)
    rows = [["openai:gpt", "batch", 1, 20, "$3.00", "$6.00"], ["openai:gpt", "live", 100, 2000, "?", "?"]]
    table(["MODEL", "LANE", "CALLS", "TOKENS", "COST", "LIVE"], rows, right="CALLS,TOKENS,COST,LIVE")
    assert capsys.readouterr().out.splitlines() == [
        "MODEL       LANE   CALLS",
        "openai:gpt  batch      1",
        "openai:gpt  live     100",
        "",
        "MODEL       LANE   TOKENS",
        "openai:gpt  batch      20",
        "openai:gpt  live     2000",
        "",
        "MODEL       LANE    COST",
        "openai:gpt  batch  $3.00",
        "openai:gpt  live       ?",
        "",
        "MODEL       LANE    LIVE",
        "openai:gpt  batch  $6.00",
        "openai:gpt  live       ?",
    ]
    table(["CALL", "TOKENS", "OUTCOME"], [["#" * 20, "12345678", "it did"]], right="TOKENS")
    assert capsys.readouterr().out.splitlines()[-2:] == [f"{'#' * 20}  12345678", "    it did"]


def test_a_call_that_was_open_when_its_run_ended_waits_no_more(desk: Desk) -> None:
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    assert "… waits" in desk.segue("show", "q").out
    desk.segue("cancel", "q")
    desk.segue("advance", "app.py")
    assert "… had none when the run ended" in desk.segue("show", "q").out


def test_letters_that_take_two_places_stand_under_their_heading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_at_a_terminal(monkeypatch, 32)
    table(["ID", "WHAT"], [["注文/1", "配送が遅い、とても残念です。"], ["e\u0301te\u0301", "🎉 done"]])
    assert capsys.readouterr().out.splitlines() == [
        "ID      WHAT",
        "注文/1  配送が遅い、とても残念…",
        "e\u0301te\u0301     🎉 done",
    ]
    assert [breadth(text) for text in ("abc", "日本", "e\u0301", "👩\u200d🚀", "")] == [3, 4, 1, 4, 0]
    assert [short("日本語", width) for width in (6, 5, 4, 1)] == ["日本語", "日本…", "日…", "…"]
