"""Actors at the command line: run as flows are, and drawn."""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.cli.desk import Desk, Provider

ACTORS = """
from dataclasses import dataclass

import segue
from segue import Actor, Done


@dataclass
class Ticket:
    text: str


@dataclass
class Drafted:
    draft: str


class Review(Actor[str]):
    ticket: str
    tries: int = 1

    def begin(self) -> Ticket:
        return Ticket(self.ticket * self.tries)

    @segue.state
    async def write(self, t: Ticket) -> Drafted:
        return Drafted(t.text.upper())

    @segue.state
    async def review(self, s: Drafted) -> Done[str] | Ticket:
        ok = await segue.ask("Send?", show=s.draft, returns=bool)
        return Done(s.draft) if ok else Ticket("again")


@segue.step
def triple(n: int) -> int:
    return 3 * n
"""


@pytest.fixture
def actors(desk: Desk) -> Desk:
    desk.write("actors.py", ACTORS)
    return desk


def test_an_actor_is_run_as_a_flow_is(actors: Desk):
    said = actors.segue("run", "actors.py:Review", "ticket=hi", "tries=2", "--id", "r")
    assert said.code == 3  # it waits for a person
    assert "Send?" in said.err
    ask = re.search(r"segue answer (\S+) VALUE", said.err)
    assert ask is not None, said.err
    assert actors.segue("answer", ask[1].strip("'"), "yes").code == 0
    said = actors.segue("run", "actors.py:Review", "--id", "r")
    assert (said.code, said.out) == (0, "HIHI\n")


def test_its_fields_by_place(actors: Desk):
    said = actors.segue("run", "actors.py", "hi", "3", "--id", "r")
    assert said.code == 3
    assert "HIHIHI" in said.err


def test_arguments_by_name(actors: Desk):
    assert actors.segue("run", "app.py:pair", "right=7", "left=a b").out == "a b:7\n"
    assert actors.segue("run", "app.py:pair", "up=7", "3").out == "up=7:3\n"  # no name of its own
    assert actors.segue("run", "app.py:twice", "n=2").out == "8\n"


def test_a_field_that_doesnt_fit(actors: Desk):
    said = actors.segue("run", "actors.py:Review", "ticket=hi", "tries=x")
    assert said.code == 2
    assert "tries" in said.err
    assert "expected int" in said.err


def test_a_step_is_run_too(actors: Desk):
    assert actors.segue("run", "actors.py:triple", "4").out == "12\n"


def test_a_diagram(actors: Desk):
    said = actors.segue("diagram", "actors.py:Review")
    assert said.code == 0
    assert said.out.splitlines()[0] == "stateDiagram-v2"
    assert "    Ticket --> Drafted: write" in said.out
    assert said.out == actors.segue("diagram", "actors.py").out
    (plain,) = actors.segue("diagram", "actors.py:Review", "--json").rows
    assert (plain["actor"], plain["at"], plain["diagram"]) == ("Review", "", said.out.removesuffix("\n"))
    assert {"from": "Ticket", "to": "Drafted", "by": "write"} in plain["edges"]


def test_the_diagram_of_a_run_shows_where_it_stands(actors: Desk):
    actors.segue("run", "actors.py:Review", "hi", "--id", "r")
    said = actors.segue("diagram", "actors.py:Review", "--run", "r")
    assert said.out.splitlines()[-1] == "    class Drafted now"
    (plain,) = actors.segue("diagram", "actors.py:Review", "--run", "r", "--json").rows
    assert (plain["run"], plain["at"]) == ("r", "Drafted")
    said = actors.segue("diagram", "actors.py:Review", "--run", "x")
    assert said.code == 2
    assert "no run 'x'" in said.err or "'x'" in said.err


def test_what_cant_be_drawn(actors: Desk):
    said = actors.segue("diagram", "app.py:twice")
    assert said.code == 2
    assert "derive a class from segue.Actor" in said.err
    actors.segue("run", "app.py:twice", "2", "--id", "two")
    said = actors.segue("diagram", "actors.py:Review", "--run", "two")
    assert said.code == 2
    assert "run 'two' is one of flow 'twice'" in said.err


@pytest.mark.parametrize("command", ["worker", "check", "diagram"])
def test_an_edge_to_nowhere_is_told_before_anything_runs(actors: Desk, command: str):
    actors.write(
        "lost.py",
        ACTORS.replace("-> Drafted:", "-> Drafted | Lost:").replace(
            "@dataclass", "class Lost: ...\n\n@dataclass", 1
        ),
    )
    said = actors.segue(command, "lost.py")
    assert said.code == 2
    assert "Review.write: it leads to the state Lost, which has no handler; add a @state method" in said.err


LISTENER = """
from datetime import timedelta

import segue
from segue import Actor, Note


class Hold(Note):
    pass


class Listener(Actor[None]):
    @segue.on
    async def hold(self, _: Hold) -> None:
        print("holding", flush=True)
        await segue.sleep(timedelta(days=1))

    async def setup(self) -> None:
        print("up", flush=True)
        await self.me.tell(Hold())

    def interrupted(self) -> object:
        print("interrupted", flush=True)
        return segue.Interrupted()

    def rollback(self) -> None:
        print("rolled back", flush=True)
"""


def test_each_ctrl_c_asks_an_actor_more_urgently_to_end(desk: Desk):
    desk.write("listener.py", LISTENER)
    process = desk.start("run", "listener.py:Listener", "--id", "l", "--json")
    assert process.stdout is not None
    while "holding" not in process.stdout.readline():
        pass
    for _ in range(3):
        time.sleep(0.4)  # two strokes at once count as one
        process.send_signal(signal.SIGINT)
    said = desk.finish(process)
    assert "rolled back" in said.out
    assert "was interrupted" in said.out + said.err


def test_rows_over_an_actor(actors: Desk):
    actors.write("rows.jsonl", '{"n": 1}\n{"n": 2}\n')
    actors.write("sums.py", SUMS)
    said = actors.segue("map", "sums.py:Sum", "rows.jsonl", "-o", "out.jsonl")
    assert said.code == 0, said.err
    assert [row["value"] for row in actors.rows()] == [2, 4]


SUMS = """
from dataclasses import dataclass

import segue
from segue import Actor, Done


@dataclass
class Go:
    n: int


class Sum(Actor[int]):
    n: int
    by: int = 2

    def begin(self) -> Go:
        return Go(self.n)

    @segue.state
    async def go(self, work: Go) -> Done[int]:
        return Done(work.n * self.by)
"""


def test_a_past_that_is_kept_or_dropped_is_told_of(desk: Desk):
    desk.write("kept.py", ACTORS)
    desk.write(
        "gone.py", ACTORS.replace("Actor[str])", 'Actor[str], history="drop")').replace("Review", "Brief")
    )
    for file, name in (("kept.py", "Review"), ("gone.py", "Brief")):
        for _ in range(2):
            said = desk.segue("run", f"{file}:{name}", "ticket=hi", "--id", name)
            ask = re.search(r"segue answer (\S+) VALUE", said.err)
            assert ask is not None
            desk.segue("answer", ask[1].strip("'"), "no")
        desk.segue("advance", file)
    said = desk.segue("show", "Review")
    assert "commits before its last turn are history: --history lists their calls" in said.out
    assert said.out.count("ask ") == 1
    said = desk.segue("show", "Review", "--history")
    assert said.out.count("ask ") == 3
    assert re.search(r"/review.2#0 +ask +\+\S+ \w+ +false", said.out)
    said = desk.segue("show", "Brief", "--history")
    assert "commits of its past were dropped, as its history= says" in said.out
    assert said.out.count("ask ") == 1
    assert '"dropped":' in desk.segue("show", "Brief", "--json").out
    said = desk.segue("export", "Brief")
    assert '"dropped":' in said.out
    assert "were dropped" in said.err
    said = desk.segue("replay", "gone.py", "Brief")
    assert "that is its last turn" in said.err
    assert "were dropped" in said.err
    assert "is no journal that could be forked" in desk.segue("fork", "Brief").err


COUNTER = """
import segue


class Add(segue.Request[str]):
    n: int


class Counter(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def add(self, m: Add) -> str:
        self.total += m.n
        return await segue.generate("Well done?")
"""


def test_an_actor_that_is_started_and_left(desk: Desk, provider: Provider):
    desk.write("counter.py", COUNTER)
    words = ("run", "counter.py:Counter", "--id", "c", "--no-wait", "--model", provider.model)
    said = desk.segue(*words)
    assert (said.code, said.out) == (3, "c\n")
    assert desk.segue(*words).code == 3
    desk.segue("tell", "c", "Add", '{"n": 5}')
    desk.segue("advance", "counter.py")
    assert desk.segue("show", "c", "--json").rows[0]["fields"] == {"total": 5}
    said = desk.segue("show", "c")
    assert "listening, 2 turns" in said.out
    assert 'its fields: {"total":5}' in said.out
    assert "openai:test, live: 1 call, " in said.out
    assert "openai:test (live)" in said.out  # the call of its last turn
    assert "no call is recorded" not in said.err
    desk.segue("cancel", "c")
    desk.segue("advance", "counter.py")
    assert desk.segue(*words).code == 1


def test_an_actor_that_is_done_is_shown_as_it_ended(desk: Desk):
    desk.write("sums.py", SUMS.replace("        return Done(", "        self.by += 1\n        return Done("))
    assert desk.segue("run", "sums.py:Sum", "2", "--id", "s").out == "6\n"
    assert desk.segue("show", "s", "--json").rows[0]["fields"] == {"n": 2, "by": 3}
    assert '"by":3' in desk.segue("show", "s").out


def test_calls_are_listed_by_place(desk: Desk):
    desk.write(
        "join.py",
        "import segue\n@segue.flow\nasync def child() -> int:\n    return 1\n@segue.flow\n"
        "async def parent() -> int:\n    return await (await segue.spawn(child()))\n",
    )
    desk.segue("run", "join.py:parent", "--id", "p")
    assert [call["call"] for call in desk.segue("show", "p", "--json").rows[1:]] == ["#0", "#1"]


# ---------------------------------------------------------------- segue tell
TOLD = """
import segue

class Add(segue.Note):
    n: int

class Sum(segue.Request[int]):
    pass

class Lost(segue.Note):
    pass

class Till(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def add(self, note: Add) -> None:
        self.total += note.n

    @segue.on
    async def sum(self, request: Sum) -> int:
        return self.total
"""


@pytest.mark.parametrize(
    ("type", "message", "says"),
    [
        ("Lost", "{}", "there is no message 'Lost'; run 'c', of Till, takes Add, Sum"),
        ("Ad", "{}", "there is no message 'Ad'; did you mean 'Add'? till.py has Add, Sum, Lost"),
        ("Till", "{}", "there is no message 'Till'; till.py has Add, Sum, Lost"),
        ("Add", "3", "the message Add: expected Add (n: int): it is an integer; got 3"),
        ("Add", '{"m": 3}', "the message Add: expected Add (n: int): the field `n` is missing"),
        ("Add", '{"n": 3, "m": 4}', "expected Add (n: int): it has no field 'm'"),
        ("Sum", "now", "expected Sum, which has no fields: {}: it is a string"),
    ],
)
def test_what_an_actor_does_not_take_is_refused(desk: Desk, type: str, message: str, says: str):
    desk.write("till.py", TOLD)
    desk.segue("run", "till.py:Till", "--id", "c", "--no-wait")
    said = desk.segue("tell", "c", f"till.py:{type}", message)
    assert said.code == 2
    assert says in said.err
    assert desk.segue("tell", "c", "till.py:Add", '{"n": 3}').code == 0
    desk.segue("advance", "till.py")
    assert '"total":3' in desk.segue("show", "c").out
    assert "no dead letters" in desk.segue("dead").err
