"""Runs whose record or input is damaged, at the command line: they harm no others, and nothing is made of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.cli.desk import Desk


def mapped(desk: Desk) -> None:
    desk.write("rows.jsonl", "0\n1\n2\n")
    assert desk.segue("map", "app.py:twice", "rows.jsonl", "--id", "one").code == 0


def damage(desk: Desk, *rows: int) -> None:
    with closing(sqlite3.connect(desk.path / "segue.db")) as cx, cx:
        of_run = "(select k from runs where id = 'one/' || ?)"
        for row in rows:
            assert cx.execute(f"update specs set args = x'90' where run = {of_run}", (row,)).rowcount == 1


def test_a_fork_of_their_job_leaves_them_out(desk: Desk) -> None:
    mapped(desk)
    damage(desk, 0)
    said = desk.segue("fork", "--job", "one", "--id", "two")
    assert (said.code, said.out) == (0, "two\n")
    assert "1 runs can't be read and are left out, such as one/0" in said.err
    assert "2 runs made" in said.err
    damage(desk, 1, 2)
    said = desk.segue("fork", "--job", "one", "--id", "three")
    assert said.code == 2
    assert "3 can't be read, such as one/0" in said.err


def test_an_export_says_so(desk: Desk) -> None:
    mapped(desk)
    damage(desk, 0)
    said = desk.segue("export", "one/0")
    assert (said.code, said.out) == (2, "")
    assert "its input can't be read" in said.err
    said = desk.segue("export", "--job", "one", "-o", "there")
    assert said.code == 0
    assert "one/0 is left out: " in said.err
    assert sorted(path.name for path in (desk.path / "there").iterdir()) == ["1.jsonl", "2.jsonl"]


def test_a_replay_says_so(desk: Desk) -> None:
    mapped(desk)
    damage(desk, 0)
    said = desk.segue("replay", "app.py", "one/0")
    assert said.code == 2
    assert "its input can't be read" in said.err
