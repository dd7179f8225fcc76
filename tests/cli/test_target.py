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
