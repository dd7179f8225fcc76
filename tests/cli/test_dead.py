from __future__ import annotations

from tests.cli.desk import Desk


def test_a_handler_that_fails_is_told_of_with_its_error(desk: Desk):
    desk.write(
        "till.py",
        """
import segue

class Split(segue.Note):
    by: int

class Till(segue.Actor[None]):
    taken: int = 9

    @segue.on
    async def split(self, split: Split) -> None:
        raise ValueError(f"not by {split.by}")
""",
    )
    desk.segue("run", "till.py:Till", "--id", "till", "--no-wait")
    desk.segue("tell", "till", "Split", '{"by": 0}')
    said = desk.segue("advance", "till.py")
    assert "error: run till: Till.split failed: ValueError: not by 0" in said.err


def test_who_resumes_a_run_is_told_of_its_mail(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    desk.segue("tell", "q", "str", "one")
    desk.segue("cancel", "q")
    desk.segue("advance", "app.py")
    said = desk.segue("resume", "q")
    assert (
        "mail that wasn't handled: 1: `segue dead` lists it, `segue dead --resend ID` sends it again"
        in said.err
    )
    desk.segue("dead", "--drop", "1")
    desk.segue("cancel", "q")
    desk.segue("advance", "app.py")
    assert "segue dead" not in desk.segue("resume", "q").err


def test_dead_letters(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    assert "no dead letters" in desk.segue("dead").err
    for text in ("one", "two"):
        desk.segue("tell", "q", "str", text)
    desk.segue("cancel", "q")
    desk.segue("advance", "app.py")
    said = desk.segue("dead").out.splitlines()
    assert said[0].split() == ["ID", "RUN", "MESSAGE", "AGE", "WHY", "WHAT"]
    assert said[1].split()[:3] == ["1", "q", "str"]
    assert "the run had ended (cancelled)" in said[1]
    assert said[1].endswith('"one"')
    rows = desk.segue("dead", "q", "--json").rows
    assert [(row["id"], row["run"], row["type"], row["message"]) for row in rows] == [
        (1, "q", "str", "one"),
        (2, "q", "str", "two"),
    ]
    assert rows[0]["error"]["type"] == "segue.model.errors:RunEnded"
    assert desk.segue("dead", "other", "--json").rows == []
    said = desk.segue("dead", "--resend", "1")
    assert said.code == 2
    assert "takes no more mail: it is cancelled" in said.err
    said = desk.segue("dead", "--resend", "77")
    assert said.code == 2
    assert "no dead letter '77'" in said.err
    said = desk.segue("dead", "--drop", "1", "--drop", "9")
    assert said.code == 2
    assert "dropped: 1" in said.err
    assert [row["id"] for row in desk.segue("dead", "--json").rows] == [2]
    assert desk.segue("dead", "--drop", "2").code == 0
    assert desk.segue("dead", "--json").rows == []


def test_dead_letters_of_a_run_that_is_not_there(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "quest")
    said = desk.segue("dead", "ques")
    assert (said.code, "there is no run 'ques'; did you mean 'quest'?" in said.err) == (2, True)
    assert desk.segue("dead", "quest").err == "no dead letters\n"
