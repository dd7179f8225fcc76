"""Graphs of actors: edges from annotations, what is refused when an actor is started, diagrams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, NewType, Protocol, TypedDict

import pytest

import segue
from segue import Actor, Again, Answer, Done, Fail, Interrupted, Listen, Note, Request
from segue.authoring.actor.graph import Edge, edges
from segue.errors import BadSignature


@dataclass
class Ticket:
    text: str


@dataclass
class Urgent:
    draft: str


@dataclass
class Normal:
    draft: str


class Close(Note):
    pass


class Reopen(Note):
    pass


class State(Request[str]):
    pass


class Archive(Actor[str]):
    text: str


class Review(Actor[str]):
    ticket: str

    def begin(self) -> Ticket:
        return Ticket(self.ticket)

    @segue.state
    async def classify(self, t: Ticket) -> Urgent | Normal:
        return Urgent(t.text)

    @segue.state(every=timedelta(minutes=1))
    async def review(self, s: Urgent) -> Done[str] | Ticket | Again:
        return Done("")

    @segue.state
    async def send(self, s: Normal) -> Done[str] | Fail | Listen:
        return Done(s.draft)

    @segue.fallback
    async def give_up(self, s: Normal, error: OSError) -> Interrupted | Archive:
        return Interrupted()

    @segue.on
    async def close(self, m: Close) -> Archive:
        return Archive("x")

    @segue.on
    async def reopen(self, m: Reopen) -> Ticket | None:
        return None

    @segue.on
    async def state(self, m: State) -> str | Answer[str]:
        return ""


def test_edges() -> None:
    assert edges(Review.__segue__) == [  # type: ignore[attr-defined]  # set when the class is made
        Edge("[*]", "Ticket", ""),
        Edge("Ticket", "Urgent", "classify"),
        Edge("Ticket", "Normal", "classify"),
        Edge("Urgent", "[*]", "review"),
        Edge("Urgent", "Ticket", "review"),
        Edge("Urgent", "Urgent", "review"),
        Edge("Normal", "[*]", "send"),
        Edge("Normal", "Listening", "send"),
        Edge("Listening", "Archive", "close"),
        Edge("Listening", "Ticket", "reopen"),
        Edge("Listening", "Listening", "reopen"),
        Edge("Listening", "Listening", "state"),
        Edge("Normal", "[*]", "give_up"),
        Edge("Normal", "Archive", "give_up"),
    ]


signal = segue.kind("signal")


class Alarm(segue.Envelope):
    urgent = True

    async def carry_out(self, actor: object, turn: segue.Turn) -> object:
        return await turn.handler("signal", type(self))(self)


class Loudness(segue.Envelope):
    pass


class Led(Actor[str]):
    """Led by all that says what is next."""

    def begin(self):  # type: ignore[no-untyped-def]  # it may be written so
        return Ticket("x")

    @segue.state
    async def classify(self, t: Ticket) -> object:
        return Listen()

    @segue.state
    async def send(self, s: Normal) -> None: ...

    @segue.on
    async def state(self, m: State) -> str | Answer[str, Ticket | None]:
        return Answer("", then=Ticket("x"))

    @segue.fallback
    async def unsure(self, m: State, error: OSError) -> Answer[str, Normal]:
        return Answer("", then=Normal(""))

    @segue.on
    async def later(self, m: Later, reply: segue.Responder[int]) -> Done[str]:
        return Done("")

    @signal
    async def alarm(self, m: Alarm) -> Normal | None:
        return None

    @signal
    async def loud(self, m: Loudness) -> int | Reopen:
        return 1

    def finished(self, child: segue.Ended) -> Urgent | None:
        return None

    @segue.state
    async def review(self, s: Urgent) -> Listen:
        return Listen()

    async def failed(self, error: Exception) -> Fail | None:
        return None

    def interrupted(self) -> Ticket | Interrupted:
        return Interrupted()


class Later(Request[int]):
    pass


def test_edges_of_all_that_says_what_is_next() -> None:
    assert edges(Led.__segue__) == [  # type: ignore[attr-defined]  # as above
        Edge("[*]", "?", ""),
        Edge("Ticket", "?", "classify"),
        Edge("Normal", "Listening", "send"),
        Edge("Urgent", "Listening", "review"),
        Edge("Listening", "Listening", "state"),
        Edge("Listening", "Ticket", "state"),
        Edge("Listening", "Normal", "unsure"),
        Edge("Listening", "[*]", "later"),
        Edge("Listening", "Urgent", "finished"),
        Edge("Listening", "Ticket", "interrupted"),
        Edge("Listening", "[*]", "interrupted"),
        Edge("Ticket", "[*]", "failed"),
        Edge("Normal", "[*]", "failed"),
        Edge("Urgent", "[*]", "failed"),
        Edge("Listening", "[*]", "failed"),
        Edge("Listening", "Normal", "alarm"),
    ]
    assert '    state "?" as _\n' in segue.diagram(Led)


async def test_an_answer_leads_where_it_says() -> None:
    class Answers(Actor[str]):
        @segue.on
        async def state(self, m: State) -> Answer[str, Normal]:
            return Answer("sent", then=Normal("x"))

        @segue.state
        async def send(self, s: Normal) -> Done[str]:
            return Done(s.draft)

    async with segue.Engine() as engine:
        run = await engine.start(Answers())
        assert await run.request(State()) == "sent"
        assert await run == "x"


def test_a_diagram() -> None:
    text = segue.diagram(Review, at="Urgent")
    lines = text.splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert "    [*] --> Ticket" in lines
    assert "    Ticket --> Urgent: classify" in lines
    assert "    Normal --> [*]: send" in lines
    assert lines[-1] == "    class Urgent now"
    assert "now" not in segue.diagram(Review)
    assert segue.diagram(Review.__segue__) == segue.diagram(Review)  # type: ignore[attr-defined]  # as above


def test_names_that_mermaid_doesnt_take() -> None:
    class Outer:
        @dataclass
        class Inner:
            pass

    class Nested(Actor[None]):
        def begin(self) -> Outer.Inner:
            return Outer.Inner()

        @segue.state
        async def inner(self, s: Outer.Inner) -> Listen:
            return Listen()

    globals()["Outer"] = Outer
    text = segue.diagram(Nested)
    ident = text.splitlines()[1].rpartition(" ")[2]
    assert ident.isidentifier()
    assert f'    state "Inner" as {ident}' in text
    assert f"    [*] --> {ident}" in text


def test_only_actors_have_one() -> None:
    @segue.flow
    async def flow() -> None: ...

    with pytest.raises(TypeError, match="draws actors"):
        segue.diagram(flow)


# ---------------------------------------------------------------- what is refused
def refusal(cls: Any, *arguments: Any) -> str:
    with pytest.raises(BadSignature) as caught:
        cls.__segue__.take(cls(*arguments))
    return str(caught.value)


def test_edges_to_nowhere() -> None:
    class Begins(Actor[None]):
        def begin(self) -> Ticket:
            return Ticket("x")

    class Leads(Actor[None]):
        @segue.on
        async def close(self, m: Close) -> Urgent:
            return Urgent("x")

    class Falls(Actor[None]):
        def begin(self) -> Ticket:
            return Ticket("x")

        @segue.state
        async def classify(self, t: Ticket) -> Listen:
            return Listen()

        @segue.fallback
        async def back(self, t: Ticket, error: OSError) -> Normal:
            return Normal("x")

    class Answers(Actor[None]):
        @segue.on
        async def state(self, m: State) -> Answer[str, Urgent]:
            return Answer("", then=Urgent("x"))

    class Hears(Actor[None]):
        def finished(self, child: segue.Ended) -> Normal | None:
            return None

    assert "Answers.state: it leads to the state Urgent" in refusal(Answers)
    assert "Hears.finished: it leads to the state Normal" in refusal(Hears)
    assert "Begins.begin: it leads to the state Ticket, which has no handler; add a @state" in refusal(Begins)
    assert "Leads.close: it leads to the state Urgent" in refusal(Leads)
    assert "Falls.back: it leads to the state Normal, which has no handler" in refusal(Falls)
    assert "the states are Ticket" in refusal(Falls)


def test_handlers_that_cant_be() -> None:
    class Twice(Actor[None]):
        @segue.state
        async def one(self, t: Ticket) -> Listen:
            return Listen()

        @segue.state
        async def two(self, t: Ticket) -> Listen:
            return Listen()

    class Kinds(Actor[None]):
        @segue.kind("a")
        async def one(self, t: Ticket) -> None: ...

        @segue.kind("b")
        async def two(self, t: Ticket) -> None: ...

    class Nothing(Actor[None]):
        @segue.fallback
        async def back(self, t: Ticket, error: OSError) -> Listen:
            return Listen()

    class NoError(Actor[None]):
        @segue.state
        async def classify(self, t: Ticket) -> Listen:
            return Listen()

        @segue.fallback
        async def back(self, t: Ticket, error: int) -> Listen:
            return Listen()

    assert "two: one() takes a Ticket too" in refusal(Twice)
    Kinds.__segue__.take(Kinds())  # type: ignore[attr-defined]  # of two kinds, so not for one thing
    assert "Nothing.back: it is a fallback for Ticket, which has no handler" in refusal(Nothing)
    assert "no type of errors" in refusal(NoError)
    with pytest.raises(ValueError, match="segue's own"):
        segue.kind("on")


class Has(Protocol):
    text: str


class Row(TypedDict):
    n: int


Number = NewType("Number", int)


@pytest.mark.parametrize("mark", [segue.state, segue.on])
@pytest.mark.parametrize(
    "takes", [object, Any, None, Ticket | None, Literal["a"], Row, Number, Has, Sequence[int]], ids=repr
)
def test_what_is_no_values_own_type(mark: Any, takes: Any) -> None:
    """A method that takes it would never be called."""

    async def hear(self: Any, x: Any) -> None: ...

    hear.__annotations__["x"] = takes

    class Deaf(Actor[None]):
        pass

    Deaf.hear = mark(hear)  # type: ignore[attr-defined]  # as if it stood there
    assert "Deaf.hear: a state or message is known by its own type, and no value's is" in refusal(Deaf)


@pytest.mark.parametrize("name", ["finished", "setup", "perform", "me"])
def test_names_that_every_actor_has(name: str) -> None:
    """A field, or a handler, of that name would take its place, and be called as what it isn't."""

    async def hear(self: Any, x: Close) -> None: ...

    def late(self: Any, x: Ticket, error: OSError) -> Listen:
        return Listen()

    parts: list[dict[str, Any]] = [
        {"__annotations__": {name: int}, name: 0},
        {"__annotations__": {name: list[str]}, name: segue.field(default_factory=list)},
        {name: segue.on(hear)},
        {name: segue.kind("k")(hear)},
        {name: segue.fallback(late)},
    ]
    for part in parts:
        with pytest.raises(
            BadSignature, match=rf"Named.{name}: every actor has its {name}, so it can't be a"
        ):
            type("Named", (Actor,), {"__module__": __name__, "__qualname__": "Named", **part})


def test_the_same_type_among_several() -> None:
    class Twice(Actor[None]):
        @segue.on
        async def one(self, m: Close | Reopen) -> None: ...

        @segue.on
        async def two(self, m: Reopen) -> None: ...

    class Nothing(Actor[None]):
        @segue.on
        async def one(self, m: Close) -> None: ...

        @segue.fallback
        async def back(self, m: Close | Reopen, error: OSError | TimeoutError) -> None: ...

    class NoError(Actor[None]):
        @segue.on
        async def one(self, m: Close) -> None: ...

        @segue.fallback
        async def back(self, m: Close, error: OSError | int) -> None: ...

    assert "Twice.two: one() takes a Reopen too" in refusal(Twice)
    assert "Nothing.back: it is a fallback for Reopen, which has no handler" in refusal(Nothing)
    assert "NoError.back: int is no type of errors" in refusal(NoError)


def test_the_edges_of_a_method_that_takes_several() -> None:
    class Both(Actor[None]):
        def begin(self) -> Ticket:
            return Ticket("x")

        @segue.state
        async def write(self, t: Ticket | Urgent) -> Urgent | Done[None]:
            return Done()

    assert segue.diagram(Both).splitlines()[1:] == [
        "    [*] --> Ticket",
        "    Ticket --> Urgent: write",
        "    Ticket --> [*]: write",
        "    Urgent --> Urgent: write",
        "    Urgent --> [*]: write",
    ]


def test_fields_and_states_that_cant_be_stored() -> None:
    class Locked(Actor[None]):
        lock: asyncio.Lock = segue.field(default_factory=asyncio.Lock)

    class Scratch(Actor[None]):
        lock: asyncio.Lock = segue.field(default_factory=asyncio.Lock, durable=False)

    class Strange(Actor[None]):
        @segue.state
        async def classify(self, t: asyncio.Event) -> Listen:
            return Listen()

    assert "Locked.lock: it can't be stored" in refusal(Locked)
    assert "segue.field(durable=False)" in refusal(Locked)
    assert Scratch.__segue__.take(Scratch()) == b"{}"  # type: ignore[attr-defined]  # set when the class is made
    assert "Strange.classify" in refusal(Strange)
