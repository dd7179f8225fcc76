from __future__ import annotations

import pytest

from segue.authoring.mail import child_id
from tests.cli.desk import Desk, Provider


def triaged(desk: Desk, provider: Provider) -> None:
    desk.change("from typing import Literal", "from typing import Literal\nfrom segue import generate")
    desk.change(
        '    return await segue.generate(f"Answer {ticket!r} as {topic}")',
        '    if ticket == "short":\n        return topic\n    await double(2)\n'
        '    return await segue.generate(f"Answer {ticket!r} as {topic}")',
    )
    desk.write("rows.jsonl", '"a"\n"b"\n"short"\n')
    assert (
        desk.segue("map", "app.py:triage", "rows.jsonl", "--id", "one", "--model", provider.model).code == 0
    )


def calls_of(desk: Desk, job: str) -> int:
    (told,) = desk.segue("receipt", "--job", job, "--json").rows
    return sum(line["calls"] for line in told["lines"])


def test_from_a_step_on(desk: Desk, provider: Provider):
    triaged(desk, provider)
    assert calls_of(desk, "one") == 5
    said = desk.segue("fork", "--job", "one", "--from", "double", "--id", "two")
    assert said.code == 0
    assert said.out == "two\n"
    assert (
        "3 runs share 3 recorded calls; 4 are made anew, 2 of 5 model calls among them: about ?" in said.err
    )
    assert "1 runs made no call 'double'" in said.err
    desk.change("Answer {ticket!r} as", "Answer politely {ticket!r} as")
    assert desk.segue("advance", "app.py", "--job", "two").code == 0
    assert calls_of(desk, "two") == 2  # what came before was paid for already
    (told,) = desk.segue("compare", "one", "two", "--json").rows
    assert (told["only_a"], told["only_b"], told["agreement"]["rows"]) == (0, 0, 3)
    assert "seconds_median" not in told["b"] or told["b"]["seconds_median"] is None


def test_without_a_step_what_asks_otherwise_is_made_anew(desk: Desk, provider: Provider):
    triaged(desk, provider)
    desk.segue("fork", "--job", "one", "--id", "same")
    assert desk.segue("advance", "app.py", "--job", "same").code == 0
    assert calls_of(desk, "same") == 0
    desk.segue("fork", "--job", "one", "--id", "other", "--model", provider.model.replace("test", "other"))
    assert desk.segue("advance", "app.py", "--job", "other").code == 0
    assert calls_of(desk, "other") == 5


def test_the_price_is_told_and_nothing_made(desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    triaged(desk, provider)
    (told,) = desk.segue(
        "fork",
        "--job",
        "one",
        "--from",
        "double",
        "--model",
        "openai:gpt-5-mini",
        "--batch",
        "--dry-run",
        "--json",
    ).rows
    assert 0 < told["usd_anew"] < told["usd_most"]
    assert told["made"] == 0
    assert [row["job"] for row in desk.segue("runs", "--json").rows if "job" in row].count(told["job"]) == 0


def test_the_same_command_goes_on(desk: Desk, provider: Provider):
    triaged(desk, provider)
    desk.segue("fork", "--job", "one", "--from", "double", "--id", "two")
    said = desk.segue("fork", "--job", "one", "--from", "double", "--id", "two")
    assert "0 runs made, 3 were there" in said.err
    said = desk.segue("fork", "--job", "one", "--id", "one")
    assert said.code == 2
    assert "no fork of 'one/0'" in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--job", "one", "--from", "drat"), "the runs' calls are"),
        (("--job", "none"), "no job 'none'"),
        (("--job", "one", "x"), "are for one run"),
        ((), "none is named"),
    ],
)
def test_what_cant_be_forked(desk: Desk, provider: Provider, words: tuple[str, ...], says: str):
    triaged(desk, provider)
    said = desk.segue("fork", *words)
    assert said.code == 2
    assert says in said.err


PIPE = """
import segue

@segue.flow
async def part(text: str) -> str:
    return await segue.generate(f"part {await segue.generate(text)}")

@segue.flow
async def both(text: str) -> list[str]:
    return await segue.map(part, [text, text + "!"])

@segue.flow
async def whole(text: str) -> str:
    one = await part(text) + str(await segue.map(both, [text]))
    return await segue.generate(f"whole {one}")
"""


def test_runs_that_are_started_anew_count(desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch):
    """With all beneath them; those whose call is shared aren't."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    desk.write("pipe.py", PIPE)
    desk.write("rows.jsonl", '"a"\n"b"\n')
    desk.segue("map", "pipe.py:whole", "rows.jsonl", "--id", "one", "--model", provider.model)
    told = {}
    for start in ("", "both", "generate", "#1"):
        words = ["--from", start] if start else []
        words += ["--model", "openai:gpt-5-mini", "--dry-run", "--json"]
        (told[start],) = desk.segue("fork", "--job", "one", *words).rows
    assert {plan["model_calls"] for plan in told.values()} == {2 * 7}
    assert {start: plan["model_calls_anew"] for start, plan in told.items()} == {
        "": 0,
        "both": 2 * 5,
        "generate": 2 * 7,
        "#1": 2 * 6,
    }
    most = told[""]["usd_most"]
    assert [plan["usd_most"] for plan in told.values()] == [most] * 4
    assert told["generate"]["usd_anew"] == pytest.approx(most)
    assert 0.5 * most < told["both"]["usd_anew"] < most


MOVED = """
import segue

@segue.flow
async def part(text: str) -> str:
    said = await segue.generate(text)
    return said if text == "new" else await segue.ask("Right?")

@segue.flow
async def whole(text: str) -> str:
    one = await (await segue.spawn(part(text)))
    return await segue.generate(f"whole {one}")
"""


def test_runs_whose_call_is_shared_arent_anew_where_it_moved(
    desk: Desk, provider: Provider, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    desk.write("app.py", MOVED)
    desk.write("rows.jsonl", '"a"\n')
    way = ["--live", "--no-wait", "--model", provider.model]
    desk.segue("map", "app.py:whole", "rows.jsonl", "--id", "one", *way)
    desk.segue("advance", "app.py")
    desk.change("    one = await", "    await (await segue.spawn(part('new')))\n    one = await")
    desk.segue("answer", child_id("one/0", ("", 0)), '"yes"')
    assert "1 held" in desk.segue("advance", "app.py").err
    desk.segue("resume", "one/0", "--rerun")
    desk.segue("advance", "app.py")
    words = ["--from", "generate", "--model", "openai:gpt-5-mini", "--dry-run", "--json"]
    (plan,) = desk.segue("fork", "--job", "one", *words).rows
    assert (plan["model_calls"], plan["model_calls_anew"]) == (3, 1)
    assert 0 < plan["usd_anew"] < plan["usd_most"]


def test_a_job_of_which_nothing_is_over_is_not_forked(desk: Desk):
    desk.write("rows.jsonl", '"a"\n"b"\n')
    desk.segue("map", "app.py:sure", "rows.jsonl", "--id", "j", "--no-wait")
    said = desk.segue("fork", "--job", "j", "--id", "k")
    assert said.code == 2
    assert "job 'j' has no run that is over, of which a fork could be made: 2 still go on" in said.err
    assert "k" not in [line.split()[0] for line in desk.segue("runs").out.splitlines() if line]
