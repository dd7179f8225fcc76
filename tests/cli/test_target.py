"""Which code a command's runs are of."""

from __future__ import annotations

from tests.cli.desk import Desk

FLOW = """
import segue

@segue.flow(name="n")
async def {name}(x: str) -> str:
    return {name!r} if await segue.ask("Go on?", returns=bool) else ""
"""
TWO = FLOW.format(name="a") + FLOW.format(name="b").replace("import segue", "")


def test_two_flows_of_one_name_are_refused(desk: Desk):
    desk.write("two.py", TWO)
    said = desk.segue("run", "two.py:a", "x")
    assert said.code == 2
    assert "two.py:4" in said.err
    assert "two.py:10" in said.err
    assert "name=" in said.err
    assert "segue/authoring" not in said.err


def test_flows_that_a_function_makes_are_refused_too(desk: Desk):
    desk.write(
        "made.py",
        "import segue\ndef make(what):\n    @segue.flow(name='n')\n    async def f() -> str:\n        return what\n"
        "    return f\na = make('a')\nb = make('b')\n",
    )
    said = desk.segue("run", "made.py:a")
    assert said.code == 2
    assert "made.py" in said.err
    assert "'n'" in said.err


def test_of_two_files_the_module_of_a_run_tells(desk: Desk):
    desk.write("one.py", FLOW.format(name="a"))
    desk.write("other.py", FLOW.format(name="b"))
    assert desk.segue("run", "one.py", "x", "--id", "it").code == 3
    assert desk.segue("answer", "it", "y").code == 0
    assert desk.segue("advance", "one.py", "other.py").code == 0
    assert desk.segue("run", "one.py", "--id", "it").out == "a\n"


def test_a_file_of_several_actors_tells_them(desk: Desk):
    desk.write(
        "crew.py", "import segue\nclass Cook(segue.Actor[None]): ...\nclass Waiter(segue.Actor[None]): ...\n"
    )
    for command in ("run", "diagram"):
        said = desk.segue(command, "crew.py")
        assert said.code == 2
        assert "name one of crew.py: `crew.py:Cook`, `crew.py:Waiter`" in said.err


CREW = """
import segue

class Cook(segue.Actor[None]): ...

@segue.step
async def chop(what: str) -> str:
    return what

@segue.flow
async def dish(what: str) -> str:
    return await chop(what) if await segue.ask("Hungry?", returns=bool) else ""

@segue.flow
async def drink(what: str) -> str:
    return what if await segue.ask("Thirsty?", returns=bool) else ""
"""


def test_where_files_are_meant_a_flow_of_one_will_do(desk: Desk):
    desk.write("crew.py", CREW)
    assert desk.segue("run", "crew.py:dish", "soup", "--id", "soup").code == 3
    assert desk.segue("run", "crew.py:drink", "tea", "--id", "tea").code == 3
    desk.segue("answer", "soup", "y")
    desk.segue("answer", "tea", "y")
    assert desk.segue("advance", "crew.py:Cook").code == 0  # of the file, all
    assert desk.segue("replay", "crew.py:dish", "soup").code == 0
    for command in ("advance", "worker", "check"):
        said = desk.segue(command, "crew.py:Cooks")
        assert said.code == 2
        assert "there is no flow or actor 'Cooks'; did you mean 'Cook'?" in said.err


def test_a_check_may_be_of_one_flow(desk: Desk):
    desk.write("crew.py", CREW)
    desk.segue("run", "crew.py:dish", "soup", "--id", "soup")
    desk.segue("run", "crew.py:drink", "tea", "--id", "tea")
    assert desk.segue("check", "crew.py").err.startswith("2 go on")
    assert desk.segue("check", "crew.py:drink").err.startswith("1 go on")
    assert desk.segue("check", "crew.py:Cook").err.startswith("0 go on")


def test_what_is_no_flow_is_called_by_its_kind(desk: Desk):
    desk.write("crew.py", CREW)
    desk.write("rows.jsonl", '"a"\n')
    for name, what in (("Cook", "is an actor"), ("chop", "is a step"), ("segue", "is a value")):
        said = desk.segue("plan", f"crew.py:{name}", "rows.jsonl")
        assert said.code == 2
        assert f"{name} of crew.py {what}" in said.err


def test_what_is_no_code_is_told_from_code(desk: Desk):
    desk.write("crew.py", CREW)
    desk.write("rows.jsonl", '"a"\n')
    said = desk.segue("map", "rows.jsonl", "crew.py:dish")
    assert said.code == 2
    assert said.err == "segue: rows.jsonl: it isn't a Python file; flows are named as in `app.py:triage`\n"
    assert "it is a folder" in desk.segue("worker", ".").err
    said = desk.segue("run", "crew.py:dish:soup", "x")
    assert "there is no flow 'dish:soup'; did you mean 'dish'?" in said.err


def test_the_line_of_a_file_that_cannot_be_imported_is_the_authors(desk: Desk):
    desk.write("late.py", "import segue\n\nclass Late(segue.Actor[None]):\n    a: int = 0\n    b: int\n")
    said = desk.segue("run", "late.py")
    assert said.code == 2
    assert "TypeError: non-default argument 'b' follows default argument" in said.err
    assert f"({desk.path / 'late.py'}, line 3)" in said.err
