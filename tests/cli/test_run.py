from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any, Literal

import pytest

from segue.authoring.flow import TARGETS
from segue.authoring.tool import Decision
from segue.cli.answers import Unfit, expects, read
from segue.core.retry import Retry
from segue.core.schema import schema
from segue.errors import StoreError
from segue.model.message import Question
from segue.runtime.calls import trying
from segue.stores.sqlite import SqliteStore
from tests.cli.desk import Desk, Provider


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["twice", "2"], "8\n"),
        (["pair", "a"], "a:3\n"),
        (["pair", "a", "4"], "a:4\n"),
        (["pair", '{"left": "b", "right": 5}'], "b:5\n"),
        (["pair", "7", "4"], "7:4\n"),
        (["pair", '"a"'], '"a":3\n'),  # a text is taken as it is
    ],
)
def test_an_input_is_read_as_the_flow_takes_it(desk: Desk, words: list[str], out: str):
    said = desk.segue("run", f"app.py:{words[0]}", *words[1:])
    assert (said.code, said.out) == (0, out)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["twice", "x"], "argument 'n' of twice: expected int"),
        (["twice"], "it is missing"),
        (["twice", "1", "2"], "it takes 1"),
        (["pair"], "argument 'left' of pair"),
        (["pair", '{"left": "b", "wrong": 5}'], "there is no parameter 'wrong'"),
    ],
)
def test_an_input_that_does_not_fit(desk: Desk, words: list[str], says: str):
    said = desk.segue("run", f"app.py:{words[0]}", *words[1:])
    assert said.code == 2
    assert says in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ['{"x": 1, "z": 2}', "a"],
            "argument 'at': expected Point: it has no field 'z'; its fields are x, y",
        ),
        (['at={"x": 1, "z": 2}'], "it has no field 'z'"),
        (['{"x": 1}', '{"x": 1, "z": 2}'], "argument 'to': expected str | Point: it has no field 'z'"),
        (['{"x": 1}', '{"z": 2}'], ""),
        (['{"x": 1}', '{"x": 2}'], ""),
    ],
)
def test_a_field_that_would_be_lost_is_refused(desk: Desk, words: list[str], says: str):
    desk.write(
        "point.py",
        "import segue\nfrom dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n    y: int = 0\n"
        "@segue.flow\nasync def way(at: Point, to: str | Point = '') -> str:\n    return repr(to)\n",
    )
    said = desk.segue("run", "point.py", *words)
    assert said.code == (2 if says else 0)
    assert says in said.err


def test_input_from_a_file(desk: Desk):
    desk.write("in.txt", "a long text\n")
    assert desk.segue("run", "app.py:pair", "--input", "in.txt").out == "a long text:3\n"
    desk.write("in.json", '{"left": "c"}')
    assert desk.segue("run", "app.py:pair", "--input", "in.json").out == "c:3\n"
    said = desk.segue("run", "app.py:pair", "--input", "nowhere.json")
    assert said.code == 2
    assert "nowhere.json: it can't be read" in said.err


def test_a_run_that_fails(desk: Desk):
    said = desk.segue("run", "app.py:twice", "7", "--id", "seven")
    assert said.code == 1
    assert said.out == ""
    assert "run 'seven' failed: ValueError: seven is right out" in said.err


def test_where_a_flow_failed(desk: Desk):
    desk.write("bad.py", "import segue\n@segue.flow\nasync def bad(n: int) -> int:\n    return missing\n")
    process = desk.start("run", "bad.py:bad", "1", "--traceback")
    said = desk.finish(process)
    assert said.code == 1
    assert said.err.count('bad.py", line 4, in bad') == 1
    assert "Traceback" not in desk.segue("run", "bad.py:bad", "1").err


def test_what_a_flow_prints_is_seen_once(desk: Desk):
    desk.write(
        "loud.py",
        "import segue\n@segue.flow\nasync def loud(n: int) -> int:\n    print('hi')\n    return n\n",
    )
    assert desk.segue("run", "loud.py:loud", "1").out == "hi\n1\n"


def test_an_id_is_idempotent(desk: Desk):
    assert desk.segue("run", "app.py:steps", "1", "--id", "s").out == "510\n"
    assert desk.segue("run", "app.py:steps", "1", "--id", "s").out == "510\n"
    assert desk.segue("run", "app.py:steps", "--id", "s").out == "510\n"
    assert len((desk.path / "done.txt").read_text().splitlines()) == 5
    said = desk.segue("run", "app.py:steps", "2", "--id", "s")
    assert said.code == 2
    assert "choose another id" in said.err


def test_tokens_and_result(desk: Desk, provider: Provider):
    said = desk.segue("run", "app.py:triage", "hello", "--model", provider.model)
    assert said.code == 0
    assert said.out.startswith("You said: Answer 'hello' as ")
    topic, answer = said.err.splitlines()  # as tokens
    assert json.loads(topic)["value"] in ("bug", "billing")
    assert answer == said.out.strip()


def test_events_as_json(desk: Desk, provider: Provider):
    said = desk.segue("run", "app.py:triage", "hello", "--model", provider.model, "--json")
    assert said.code == 0
    events = said.rows
    assert {event["type"] for event in events} >= {"Token", "Recorded", "Finished"}
    text = "".join(event["text"] for event in events if event["type"] == "Token" and event["n"] == 1)
    assert text.startswith("You said: Answer 'hello' as ")
    assert events[-1]["status"] == "done"


def test_a_clock_is_told_of_at_the_desk(desk: Desk):
    desk.change("await double(await double(n))", "await double(await double(n + time.time_ns()))")
    desk.change("import asyncio", "import asyncio, time")
    said = desk.segue("run", "app.py:twice", "1")
    assert said.code == 0
    assert "replayed from its journal, the run differs" in said.err
    assert "segue.now()" in said.err


@pytest.mark.filterwarnings("default:.*never awaited")
def test_a_call_that_is_never_awaited_is_told_of_once_with_its_line(desk: Desk):
    desk.write(
        "lost.py",
        "import segue\n\n@segue.step\nasync def save(n: int) -> None: ...\n\n@segue.flow\n"
        "async def lost(n: int) -> int:\n    save(n)\n    return n\n",
    )
    said = desk.segue("run", "lost.py", "1")
    assert said.err.splitlines() == [
        "warning: save() was never awaited, so it did nothing",
        "  lost.py:8, in lost",
        "    save(n)",
    ]


def test_a_result_that_isnt_what_the_flow_says_is_told_of(desk: Desk):
    desk.write("odd.py", "import segue\n@segue.flow\nasync def odd(n: int) -> str:\n    return n\n")
    said = desk.segue("run", "odd.py", "1")
    assert (said.code, said.out) == (0, "1\n")
    assert "warning: the result of flow 'odd': expected str" in said.err


def test_nothing_is_said_to_go_on_in_a_store_that_is_gone(desk: Desk, provider: Provider):
    memory = ("--store", "memory:")
    said = desk.segue("run", "app.py:twice", "7", *memory)
    assert said.code == 1
    assert "segue show" not in said.err
    said = desk.segue("run", "app.py:sure", "hi", *memory)
    assert said.code == 3
    assert "Send 'hi'?" in said.err
    assert "segue answer" not in said.err
    assert "to go on later give a file" in said.err
    desk.write("rows.jsonl", "7\n")
    for words in (["run", "app.py:twice", "1"], ["map", "app.py:twice", "rows.jsonl"]):
        said = desk.segue(*words, *memory, "--no-wait")
        assert (said.code, said.out) == (2, "")
        assert "--no-wait: expected a file" in said.err
    said = desk.segue("map", "app.py:twice", "rows.jsonl", *memory)
    assert said.code == 1
    assert "segue resume" not in said.err


def test_no_model_is_named(desk: Desk, provider: Provider):
    said = desk.segue("run", "app.py:triage", "hello", "--id", "t")
    assert said.code == 1
    assert "--model" in said.err
    assert "`segue resume t --model NAME`" in said.err
    assert desk.segue("resume", "t", "--model", "nobody:gpt").code == 2
    assert desk.segue("resume", "t", "--model", provider.model).code == 0
    said = desk.segue("run", "app.py:triage", "--id", "t")
    assert said.code == 0
    assert said.out.startswith("You said: Answer 'hello' as ")
    assert "differs" not in said.err  # it is replayed with that model


def test_options_that_a_run_which_is_there_doesnt_take(desk: Desk, provider: Provider):
    again = ("run", "app.py:triage", "hello", "--id", "t")
    assert "goes on as" not in desk.segue(*again, "--model", provider.model).err
    for words in (again, ("run", "app.py:triage", "--id", "t")):
        said = desk.segue(*words, "--model", provider.model.replace("test", "other"), "--batch")
        assert said.code == 0
        assert f"run 't' stays as it was begun, with mode live, model {provider.model}" in said.err
        assert "resume" in said.err
    assert "stays as" not in desk.segue(*again, "--model", provider.model, "--live").err
    assert "stays as" not in desk.segue(*again).err
    desk.write("rows.jsonl", '"a"\n"b"\n')
    job = ("map", "app.py:triage", "rows.jsonl", "--id", "j")
    assert "begun" not in desk.segue(*job, "--model", provider.model).err
    desk.write("rows.jsonl", '"a"\n"b"\n"c"\n')
    said = desk.segue(*job, "--model", provider.model.replace("test", "other"))
    assert f"job 'j': 2 of its runs stay as they were begun, with model {provider.model}" in said.err


@pytest.mark.parametrize("model", ["gpt", "opnai:gpt", "openai:gpt"])
def test_a_model_that_is_not_there(desk: Desk, model: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    said = desk.segue("run", "app.py:triage", "hello", "--model", model)
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    desk.write("rows.jsonl", '"a"\n')
    assert desk.segue("map", "app.py:triage", "rows.jsonl", "--model", model).code == 2
    assert desk.segue("runs", "--json").rows == []  # nothing was begun


@pytest.mark.parametrize("failing", ["asks", "get"])
def test_a_look_that_fails_once_ends_no_command(desk: Desk, monkeypatch: pytest.MonkeyPatch, failing: str):
    """Its run goes on, and without an id the same command would begin another one."""
    monkeypatch.setattr("segue.runtime.ground.patience.PAUSE", 0.01)
    desk.change(
        "    return await double(await double(n))",
        "    await segue.sleep(timedelta(seconds=1.2))\n    return await double(await double(n))",
    )
    desk.change("import asyncio\n", "import asyncio\nfrom datetime import timedelta\n")
    whole, looks = getattr(SqliteStore, failing), 0

    async def look(*args: Any, **how: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise StoreError("here", "the disk reports an error", "check it")
        return await whole(*args, **how)

    monkeypatch.setattr(SqliteStore, failing, look)
    said = desk.segue("run", "app.py:twice", "2")
    assert (said.code, said.out, looks > 3) == (0, "8\n", True), said.err


def test_a_question_without_a_terminal_waits(desk: Desk):
    said = desk.segue("run", "app.py:sure", "hi", "--id", "q")
    assert said.code == 3
    assert "? Send 'hi'?  (for boss)" in said.err
    assert "segue answer q:0 VALUE   (y / n)" in said.err
    assert desk.segue("answer", "q:0", "y").code == 0
    assert desk.segue("run", "app.py:sure", "--id", "q").out == "sent\n"


# ---------------------------------------------------------------- answers
@pytest.mark.parametrize(
    ("tp", "text", "value"),
    [
        (bool, "y", True),
        (bool, "No", False),
        (bool, "true", True),
        (str, "true", "true"),
        (str, '"quoted"', '"quoted"'),
        (int, " 12 ", 12),
        (float, "1.5", 1.5),
        (Literal["small", "large"], "Large", "large"),
        (Literal[1, 2], "2", 2),
        (str | None, "some text", "some text"),
        (int | None, "null", None),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Decision, "approve", {"decision": "approve"}),
        (Decision, "deny: too dear", {"decision": "deny", "reason": "too dear"}),
        (Decision, 'edit: {"n": 1}', {"decision": "edit", "arguments": {"n": 1}}),
        (Decision, '{"decision": "approve"}', {"decision": "approve"}),
    ],
)
def test_answers_are_read_by_their_schema(tp: Any, text: str, value: object):
    assert read(text, schema(tp)) == value


@pytest.mark.parametrize(
    ("tp", "text", "says"),
    [
        (bool, "perhaps", "expected y / n"),
        (int, "many", "an integer"),
        (Literal["small", "large"], "medium", "small"),
        (list[int], "1, 2", "must be an array"),
        (Decision, "maybe", "approve, deny: reason, or edit"),
        (Decision, "edit: 3", "a JSON object of arguments"),
        (Decision, '{"decision": "perhaps"}', "must be one of"),
    ],
)
def test_answers_that_do_not_fit(tp: Any, text: str, says: str):
    with pytest.raises(Unfit, match=says):
        read(text, schema(tp))
    assert expects(schema(tp))


def test_answers_on_the_command_line(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "q")
    said = desk.segue("answer", "q:0", "perhaps")
    assert said.code == 2
    assert "expected y / n" in said.err
    assert desk.segue("answer", "q", "no").code == 0  # a run that asks one question
    said = desk.segue("answer", "q:0", "y")
    assert said.code == 2
    assert "answered already" in said.err
    assert desk.segue("answer", "q:9", "y").code == 2
    assert desk.segue("advance", "app.py").code == 0
    assert desk.segue("run", "app.py:sure", "--id", "q").out == "kept\n"
    said = desk.segue("answer", "q", "y")
    assert said.code == 2
    assert "it is done" in said.err


def test_the_file_that_is_named_is_meant(desk: Desk):
    """Another file that it imports has a flow of the same name."""
    desk.write(
        "mine.py",
        "import segue\nimport app\n\n@segue.flow\nasync def sure(text: str) -> str:\n"
        '    await segue.ask("?")\n    return "mine"\n',
    )
    assert desk.segue("run", "mine.py:sure", "x", "--id", "it").code == 3
    assert desk.segue("answer", "it", "y").code == 0
    assert desk.segue("advance", "mine.py").code == 0
    assert desk.segue("runs", "--json").rows[0]["value"] == "mine"


def test_events_hold_json_and_not_its_bytes(desk: Desk):
    events = desk.segue("run", "app.py:twice", "1", "--json").rows
    assert [event.get("value") for event in events if event["type"] in ("Recorded", "Finished")] == [2, 4, 4]
    *_, failed, end = desk.segue("run", "app.py:twice", "7", "--json").rows
    assert failed["error"] == end["error"] | {"trace": failed["error"]["trace"]}
    assert (end["error"]["type"], end["error"]["message"]) == ("builtins:ValueError", "seven is right out")
    assert "in double" in end["error"]["trace"]
    (asked,) = [row for row in desk.segue("run", "app.py:sure", "hi", "--json").rows if "question" in row]
    assert asked["question"]["show"] == {"draft": "hi"}
    assert asked["question"]["schema"] == {"type": "boolean"}


def test_a_question_that_comes_as_what_is_open_is_read_is_shown_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    read = SqliteStore.asks

    async def slow(self: SqliteStore, *, to: str = "", run: str = "") -> list[Question]:
        while not (found := await read(self, to=to, run=run)):
            await asyncio.sleep(0.01)
        return found

    monkeypatch.setattr(SqliteStore, "asks", slow)
    events = desk.segue("run", "app.py:sure", "hi", "--json").rows
    assert [event["type"] for event in events].count("Asked") == 1


def test_an_id_that_nothing_has_and_no_input(desk: Desk):
    desk.segue("run", "app.py:sure", "hi", "--id", "letter-one")
    said = desk.segue("run", "app.py:sure", "--id", "letter-on")
    assert said.code == 2
    assert "there is no run 'letter-on'; did you mean 'letter-one'?" in said.err
    assert "give its input to begin it" in said.err


def test_a_call_that_is_tried_again_is_shown(desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trying, "LIVE_RETRY", Retry(3, wait=timedelta(seconds=0.01)))
    provider.simulator.faults.fail(2, status=500)
    said = desk.segue("run", "app.py:triage", "hello", "--model", provider.model)
    assert said.code == 0
    assert said.err.count("· openai:test ✗ HTTP 500, ") == 2
    assert "after attempt 2" in said.err
    assert "warning" not in said.err  # it is said once
    desk.segue("run", "app.py:triage", "x", "--id", "gone", "--model", "openai:m@http://127.0.0.1:1/v1")
    said = desk.segue("show", "gone")
    assert "no connection to 127.0.0.1:1" in said.out


@pytest.mark.parametrize("words", [("left=a", "rigth=4"), ("a", "right=4")])
def test_arguments_in_order_and_by_name_are_not_mixed(desk: Desk, words: tuple[str, ...]):
    said = desk.segue("run", "app.py:pair", *words)
    assert said.code == 2
    assert "expected all arguments in order, or each as name=value" in said.err
    assert not (desk.path / "segue.db").exists() or desk.segue("runs", "--json").rows == []


def test_what_else_is_ready_goes_on_and_is_told(desk: Desk):
    for name in ("a", "b"):
        assert desk.segue("run", "app.py:twice", "1", "--id", name, "--no-wait").code == 3
    said = desk.segue("run", "app.py:steps", "2", "--id", "mine")
    assert said.code == 0
    told = [line for line in said.err.splitlines() if "goes on here too" in line]
    assert told == ["· run 'a' was ready in this store: it, and what else is, goes on here too"]
    assert {row["status"] for row in desk.segue("runs", "--json").rows} == {"done"}
    desk.segue("run", "app.py:twice", "1", "--id", "mine.b", "--no-wait")  # as a child of it would be called
    assert "goes on here too" not in desk.segue("run", "app.py:steps", "2", "--id", "mine").err


def test_children_by_any_name_are_no_others(desk: Desk):
    app = desk.path / "app.py"
    team = "\n\n@segue.flow\nasync def team(n: int) -> int:\n    return await (await segue.spawn(steps(n), id='bob'))\n"
    app.write_text(app.read_text() + team)
    said = desk.segue("run", "app.py:team", "2")
    assert (said.code, "goes on here too" in said.err) == (0, False)


def test_what_is_ready_and_unknown_here_isnt_told(desk: Desk):
    desk.write(
        "other.py", "import segue\n@segue.flow(name='alien')\nasync def alien() -> int:\n    return 1\n"
    )
    desk.segue("run", "other.py:alien", "--id", "a", "--no-wait")
    for name in ("other", "_segue_other"):
        sys.modules.pop(name, None)
    TARGETS.pop("alien")
    said = desk.segue("run", "app.py:steps", "2")
    assert (said.code, "goes on here too" in said.err) == (0, False)


def test_calls_that_wait_for_a_thread_are_told_of_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.runtime.worker.THREADS", 1)
    monkeypatch.setattr("segue.runtime.calls.room.LONG", 0.01)
    desk.write(
        "blocks.py",
        """
import asyncio, time
import segue

@segue.step
def block(n: int) -> int:
    time.sleep(0.03)
    return n

@segue.flow
async def blocks() -> list[int]:
    return await asyncio.gather(*(block(n) for n in range(3)))
""",
    )
    said = desk.segue("run", "blocks.py")
    assert said.code == 0
    assert said.err.count("· block waits for a thread: none of 1 is free\n") == 1
