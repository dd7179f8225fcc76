"""Asking a model: any type, checks and repairs, tools, people in between; the same journal live and in batch."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import msgspec
import pydantic
import pytest

import segue
from segue import Approve, Deny, Edit, Message
from segue.authoring.tool import as_tools
from segue.model.chat import ChatReply, Citation, ToolCall
from segue.model.entry import Entry
from segue.model.errors import (
    BadAnswer,
    CheckFailed,
    ContextOverflow,
    InvalidValue,
    ModelFailed,
    Refused,
    TooManyTurns,
    Truncated,
    UnknownName,
    WrongPlace,
)
from segue.ports.provider import OVERFLOW, CallFault
from segue.stores.memory import MemoryStore
from segue.testing import FakeModel, ToolUse
from segue.testing.fake_model import FakeEngine
from tests.runtime.lives import Desk, everywhere, rows

S: list[str] = []


@pytest.fixture(autouse=True)
def begin() -> None:
    S.clear()


@dataclass
class Label:
    topic: Literal["billing", "bug"]
    urgent: bool = False


class Point(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    name: str
    size: int = 1


async def both(make: Any, set_up: Any) -> tuple[Any, list[Entry]]:
    """Its result and journal, live and in batch, which must be the same."""
    results, journals = [], []
    for mode in ("live", "batch"):
        S.clear()
        desk = Desk(verify=True)
        set_up(desk)
        results.append(await desk.run(make(), mode=mode))
        journals.append(await desk.entries())
        lanes = {use.lane for use in (await desk.head()).usage}
        assert lanes <= {mode}
    assert results[0] == results[1]
    assert rows(journals[0]) == rows(journals[1])
    assert {entry.path: entry.value for entry in journals[0] if entry.kind != "spawn"}
    return results[0], journals[0]


@pytest.mark.parametrize(
    ("returns", "value"),
    [
        (str, "text"),
        (int, 3),
        (Label, Label("bug", urgent=True)),
        (Point, Point(4)),
        (Model, Model(name="a", size=2)),
        (Literal["yes", "no"], "no"),
        (Label | Point, Point(5)),
        (list[Label], [Label("bug"), Label("billing")]),
        (dict[str, int], {"a": 1}),
        (bool | None, None),
    ],
)
async def test_types(returns: Any, value: Any) -> None:
    @segue.flow
    async def flow() -> str:
        got = await segue.generate("say", returns=returns)
        assert got == value
        whole = await segue.generate("say", returns=segue.Reply[returns])
        assert whole.value == value
        assert whole.messages[0] == Message("user", "say")
        assert whole.messages[-1].role == "assistant"
        assert whole.tokens.output > 0
        return type(got).__name__

    name, _ = await both(flow, lambda desk: desk.fake.when("say").reply(value))
    assert name == type(value).__name__


async def test_prompts() -> None:
    @segue.flow
    async def flow() -> list[str]:
        return [
            await segue.generate("plain"),
            await segue.generate(
                [Message("user", "one"), Message("assistant", "two"), "three"], system="be brief"
            ),
            await segue.generate(segue.File(b"data", media="image/png"), system="look"),
            await segue.generate(
                ["what is", segue.File(b"data", media="image/png")], temperature=0.5, max_tokens=9
            ),
        ]

    got, entries = await both(
        flow, lambda desk: desk.fake.when("").reply(lambda call: f"{len(call.messages)}")
    )
    assert got[1] == "4"
    assert len(entries) == 4


# ---------------------------------------------------------------- checks and repairs
async def test_repairs_are_further_turns() -> None:
    def even(n: int) -> None:
        if n % 2:
            raise ValueError(f"{n} is odd")

    @segue.flow
    async def flow() -> int:
        return await segue.generate("number", returns=int, check=even)

    def set_up(desk: Desk) -> None:
        desk.fake.when("number").reply("no number", 3, 4)

    got, entries = await both(flow, set_up)
    assert got == 4
    assert [entry.kind for entry in entries] == ["generate"] * 3
    later = [msgspec.json.decode(entry.args) for entry in entries[1:]]
    for args, said in zip(later, ("no number", "3 is odd"), strict=True):  # only what was added is stored
        (message,) = args["messages"] if len(args["messages"]) == 1 else args["messages"][-1:]
        assert "can't be used" in message["content"]
        assert said in message["content"] or said == "no number"
        assert "request" not in args


async def test_an_answer_that_stays_unfit() -> None:
    @segue.flow
    async def flow(repairs: int) -> int:
        return await segue.generate("number", returns=int, check=lambda n: n > 9, repairs=repairs)

    for repairs in (0, 2):
        desk = Desk()
        desk.fake.when("number").reply(3)
        with pytest.raises(BadAnswer, match="didn't pass the check"):
            await desk.run(flow(repairs))
        assert len(desk.fake.calls) == repairs + 1


async def test_a_check_that_says_neither_yes_nor_no() -> None:
    """A text would pass for a yes, and so would a coroutine."""

    async def later(n: int) -> bool:
        return False

    @segue.flow
    async def flow(which: int) -> int:
        check = (lambda n: "too small", later)[which]
        return await segue.generate("number", returns=int, check=check)

    for which in (0, 1):
        desk = Desk()
        desk.fake.when("number").reply(3)
        with pytest.raises(CheckFailed, match="ValueError"):
            await desk.run(flow(which))
        assert len(desk.fake.calls) == 1


@pytest.mark.parametrize(
    "error", [ValueError("too small"), AssertionError("too small"), UnicodeError("too small")]
)
async def test_what_a_check_turns_down(error: Exception) -> None:
    def check(n: int) -> None:
        if n < 5:
            raise error

    @segue.flow
    async def flow() -> int:
        return await segue.generate("number", returns=int, check=check)

    got, entries = await both(flow, lambda desk: desk.fake.when("number").reply(3, 7))
    assert got == 7
    assert "too small" in entries[1].args.decode()


async def test_a_check_that_asserts_without_a_word() -> None:
    def check(n: int) -> None:
        assert n > 5

    @segue.flow
    async def flow() -> int:
        return await segue.generate("number", returns=int, check=check)

    got, entries = await both(flow, lambda desk: desk.fake.when("number").reply(3, 7))
    assert (got, len(entries)) == (7, 2)


async def _is_fit(_: int) -> bool:
    return False


BROKEN: list[tuple[Callable[[Any], object], str]] = [
    (lambda n: n.missing, "AttributeError: 'int' object has no attribute 'missing'"),
    (lambda n: n + "1", "TypeError"),
    (lambda n: {}[n], "KeyError: 3"),
    (lambda n: [][n], "IndexError"),
    (lambda n: eval("nowhere"), "NameError"),
    (lambda n: 1 / 0, "ZeroDivisionError"),
    (_is_fit, "TypeError: it is async"),
]


@pytest.mark.parametrize(("check", "says"), BROKEN, ids=[says for _, says in BROKEN])
@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_a_check_that_fails_itself_isnt_paid_for(
    check: Callable[[Any], object], says: str, mode: Any
) -> None:
    checks = [check, lambda n: n == 3]

    @segue.flow
    async def flow() -> int:
        return await segue.generate("number", returns=int, check=checks[0], repairs=2)

    desk = Desk()
    desk.fake.when("number").reply(3)
    with pytest.raises(CheckFailed, match=re.escape(says)) as caught:
        await desk.run(flow(), mode=mode)
    assert "ValueError, AssertionError or False" in str(caught.value)
    assert len(desk.fake.calls) == 1
    del checks[0]  # it is mended
    async with desk.engine() as engine:
        await engine.resume("it")
        assert await engine.result("it") == 3
    assert len(desk.fake.calls) == 1


# ---------------------------------------------------------------- tools
def add(a: int, b: int) -> int:
    """Add two numbers."""
    S.append(f"add {a} {b}")
    return a + b


async def look(what: str) -> Label:
    """Look something up."""
    S.append(f"look {what}")
    if what == "nothing":
        raise KeyError("not there")
    return Label("bug")


@segue.step(retry=2)
async def flaky(n: int) -> int:
    """Fails at first."""
    S.append(f"flaky {n}")
    if S.count(f"flaky {n}") == 1:
        raise OSError("down")
    return n


@segue.flow
async def asking(question: str) -> str:
    """Ask a person."""
    return await segue.ask(question) + await segue.generate("inner")


async def test_tools_in_parallel_and_turn_by_turn() -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.generate("calculate", tools=[add, look, flaky, asking])

    def set_up(desk: Desk) -> None:
        desk.fake.when("calculate").reply(
            [ToolUse("add", a=1, b=2), ToolUse("look", what="x"), ToolUse("flaky", n=7)],
            [ToolUse("look", what="nothing"), ToolUse("add", a="no", b=2), ToolUse("nope")],
            ToolUse("asking", question="Who?"),
            "done",
        )
        desk.fake.when("inner").reply("!")
        desk.fake.answer("Who?", "me")
        said.append(desk)

    said: list[Desk] = []
    got, entries = await both(flow, set_up)
    assert got == "done"
    assert sorted(S) == ["add 1 2", "flaky 7", "flaky 7", "look nothing", "look x"]
    texts = [call.text for call in said[0].fake.calls]
    last = texts[-1]
    assert "Error: KeyError: 'not there'" in last
    assert "there is no tool 'nope'; there are add, look, flaky, asking" in last
    assert '{"topic":"bug","urgent":false}' in last
    assert "me!" in last
    turns = [entry for entry in entries if entry.kind == "generate" and entry.path == ""]
    assert len(turns) == 4
    assert all(
        b"calculate" not in entry.args for entry in turns[1:]
    )  # a conversation grows by what was added


def test_tools_that_runs_make_for_themselves_arent_kept() -> None:
    def made(run: int) -> Callable[[str], str]:
        def look(order: str) -> str:
            return f"{run}: {order}"

        return look

    first = made(0)
    assert as_tools([first]) == as_tools([first])
    kept = weakref.ref(first)
    del first
    for run in range(5000):  # more than what is known of signatures
        as_tools([made(run)])
    gc.collect()
    assert kept() is None


async def test_too_many_turns() -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.generate("calculate", tools=[add], max_turns=3)

    desk = Desk()
    desk.fake.when("calculate").reply(ToolUse("add", a=1, b=2))
    with pytest.raises(TooManyTurns, match="after 3 turns"):
        await desk.run(flow())
    assert len(S) == 2


async def test_people_approve_deny_and_edit() -> None:
    @segue.flow
    async def flow() -> str:
        big = segue.tool(add, approve=lambda a, b: a > 5, to="boss")
        return await segue.generate("calculate", tools=[big])

    for decision, done, told in (
        (Approve(), ["add 9 1"], "10"),
        (Deny("too much"), [], "Denied by a person: too much"),
        (Edit(a=2), ["add 2 1"], "3"),
    ):

        def set_up(desk: Desk, decision: Any = decision) -> None:
            desk.fake.when("calculate").reply(ToolUse("add", a=9, b=1), lambda call: call.text)
            desk.fake.answer("May add be called?", decision)

        got, _ = await both(flow, set_up)
        assert done == S
        assert got.endswith(told)

    S.clear()
    desk = Desk()
    desk.fake.when("calculate").reply(ToolUse("add", a=1, b=1), "ok")
    assert await desk.run(flow()) == "ok"  # nobody is asked


async def test_an_edit_that_doesnt_fit_is_refused_or_asked_for_again() -> None:
    """What the schema knows is refused at once; what only the type knows, when it is read."""

    async def book(day: date, seats: int = 1) -> str:
        """Book."""
        return f"{day} {seats}"

    @segue.flow
    async def flow() -> str:
        return await segue.generate("calculate", tools=[segue.tool(book, approve=True)])

    fake = FakeModel().when("calculate").reply(ToolUse("book", day="2026-01-02"), lambda call: call.text)
    async with FakeEngine(fake, MemoryStore()) as engine:
        run = await engine.start(flow())
        questions = engine.asks()
        ask = await anext(questions)
        for wrong in (Edit(nosuch=1), Edit(seats="two")):
            with pytest.raises(InvalidValue, match=r"nosuch|seats"):
                await ask.answer(wrong)
        await ask.answer(Edit(day="soon"))
        again = await anext(questions)
        assert again.question.startswith("That didn't fit: argument 'day' of book: ")
        await again.answer(Edit(day="2026-02-03"))
        assert (await run).endswith("2026-02-03 1")


async def test_an_authors_mistake_in_a_tool_isnt_the_models() -> None:
    async def nosy(text: str) -> str:
        """Wants to ask."""
        return await segue.ask(text)

    @segue.flow
    async def flow() -> str:
        return await segue.generate("calculate", tools=[nosy])

    desk = Desk()
    desk.fake.when("calculate").reply(ToolUse("nosy", text="x"), "ok")
    with pytest.raises(WrongPlace, match=r"make .*nosy.* a flow"):
        await desk.run(flow())


async def test_a_model_call_in_a_step() -> None:
    @segue.step
    async def nosy() -> str:
        return await segue.generate("hi")

    @segue.flow
    async def flow() -> str:
        return await nosy()

    for mode in ("live", "batch"):
        with pytest.raises(WrongPlace, match=r"segue\.generate\(\) was called inside the step"):
            await Desk().run(flow(), mode=mode)


# ---------------------------------------------------------------- models
async def test_fall_backs_and_roles() -> None:
    @segue.flow
    async def flow() -> list[str]:
        whole = await segue.generate("hi", model=["fake:down", "judge"], returns=segue.Reply[str])
        return [whole.model, await segue.generate("hi", model="judge")]

    def set_up(desk: Desk) -> None:
        desk.fake.when("hi").reply("yes")
        desk.fake.when("hi", model="fake:down").reply(ModelFailed("fake:down", 400, "no"))

    for mode in ("live", "batch"):
        desk = Desk(models={"judge": "fake:big"}, verify=True)
        set_up(desk)
        assert await desk.run(flow(), mode=mode) == ["fake:big", "yes"]


async def test_a_role_that_isnt_known_is_told_with_those_that_are() -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.generate("hi", model="jugde")

    async with segue.Engine(models={"judge": "openai:big", "cheap": "openai:small"}) as engine:
        with pytest.raises(
            UnknownName, match="no model or role 'jugde'; roles are cheap, judge; write it as"
        ):
            await engine.run(flow())


async def test_a_model_that_fails_for_good() -> None:
    @segue.flow
    async def flow() -> str:
        try:
            return await segue.generate("hi")
        except ModelFailed as error:
            return f"{error.status} {error}"

    got, _ = await both(
        flow, lambda desk: desk.fake.when("hi").reply(ModelFailed("fake:model", 400, "bad prompt"))
    )
    assert got.startswith("400 model 'fake:model' failed (HTTP 400")
    assert "bad prompt" in got


async def test_passing_faults_are_tried_again() -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.generate("hi")

    got, entries = await both(
        flow, lambda desk: desk.fake.when("hi").reply(OSError("reset"), OSError("reset"), "yes")
    )
    assert got == "yes"
    assert len(entries) == 1


async def test_no_model_is_named() -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.generate("hi")

    with pytest.raises(UnknownName, match="say which"):
        await Desk(model=()).run(flow())


async def test_embed() -> None:
    @segue.flow
    async def flow() -> list[list[float]]:
        one = await segue.embed(["a", "b"])
        two = await segue.embed(["b"])
        assert one[1] == two[0]
        return one

    got, entries = await both(flow, lambda desk: None)
    assert len(got) == 2
    assert [entry.kind for entry in entries] == ["embed", "embed"]


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_many_texts_are_several_calls(mode: Any) -> None:
    texts = [f"text {number}" for number in range(5000)]

    @segue.flow
    async def flow() -> bool:
        vectors = await segue.embed(texts)
        again = await segue.embed(texts[4096:4098])
        assert await segue.embed([]) == []
        return len(vectors) == 5000 and vectors[4096:4098] == again

    desk = Desk()
    assert await desk.run(flow(), mode=mode, id="it")
    assert [entry.kind for entry in await desk.entries() if entry.kind] == ["embed"] * 4


async def test_a_conversation_that_is_too_long_for_one_model_goes_to_the_next() -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.generate("hi", model=["fake:small", "fake:large"])

    def set_up(desk: Desk) -> None:
        desk.fake.when("hi", model="fake:small").reply(CallFault(400, "too long", again=False, code=OVERFLOW))
        desk.fake.when("hi", model="fake:large").reply("read it all")

    got, _ = await both(flow, set_up)
    assert got == "read it all"


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (ChatReply("I won't.", stop="refusal"), Refused, "the model declined"),
        (ChatReply("", stop="filter"), Refused, "a filter stopped it"),
        (ChatReply("Once upon", stop="length"), Truncated, "raise max_tokens="),
        (
            ChatReply("", [ToolCall("c", "add", '{"a": 1')], stop="length"),
            Truncated,
            "cut off at its length limit",
        ),
        (CallFault(400, "too long", again=False, code=OVERFLOW), ContextOverflow, "too long"),
    ],
)
@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_answers_that_are_none_are_told_apart(
    reply: Any, kind: type[Exception], says: str, mode: Any
) -> None:
    @segue.flow
    async def flow() -> str:
        return await segue.generate("hi", tools=[add])

    desk = Desk()
    desk.fake.when("hi").reply(reply)
    with pytest.raises(kind, match=says) as caught:
        await desk.run(flow(), mode=mode)
    assert type(caught.value) is kind
    assert len(desk.fake.calls) == 1


@pytest.mark.parametrize("stop", ["length", "refusal", "filter"])
async def test_who_asks_for_the_reply_looks_at_its_stop(stop: Any) -> None:
    @segue.flow
    async def flow() -> list[str]:
        reply = await segue.generate("hi", returns=segue.Reply[str])
        return [reply.value, reply.stop]

    got, _ = await both(flow, lambda desk: desk.fake.when("hi").reply(ChatReply("so far", stop=stop)))
    assert got == ["so far", stop]


async def test_a_value_that_was_cut_off_is_none() -> None:
    @segue.flow
    async def flow() -> int:
        return await segue.generate("how many", returns=int)

    got, entries = await both(
        flow, lambda desk: desk.fake.when("how many").reply(ChatReply("12", stop="length"), "123")
    )
    assert got == 123  # "12" would have been one, too
    assert b"more briefly" in entries[1].args


async def test_thoughts_and_citations_come_with_the_reply() -> None:
    said = ChatReply("Paris", reasoning="Hm.", citations=[Citation("https://a.b", start=0, end=5)])

    @segue.flow
    async def flow() -> list[Any]:
        reply = await segue.generate("hi", returns=segue.Reply)
        return [reply.text, reply.reasoning, reply.citations[0].url, reply.stop]

    got, _ = await both(flow, lambda desk: desk.fake.when("hi").reply(said))
    assert got == ["Paris", "Hm.", "https://a.b", "end"]


async def test_a_conversation_survives_crashes() -> None:
    @segue.flow
    async def flow() -> str:
        async def one(n: int) -> str:
            return await segue.generate(f"calculate {n}", tools=[add], returns=Label | str)  # type: ignore[arg-type,return-value]

        return str(await asyncio.gather(*(one(n) for n in range(2))))

    def set_up(desk: Desk) -> None:
        S.clear()
        for n in range(2):
            desk.fake.when(f"calculate {n}").reply(ToolUse("add", a=n, b=2), Label("bug"))

    def check(desk: Desk, head: Any) -> None:
        assert head.status == "done", head
        assert head.value.count(b"bug") == 2
        assert len(S) <= 4  # both may be cut off
        assert all(count == 1 for count in desk.fake.remote.sent.values())

    for mode in ("live", "batch"):
        await everywhere(flow, set_up, check, mode=mode)


async def test_the_mode_may_change_between_lives() -> None:
    @segue.flow
    async def flow() -> str:
        return (
            await segue.generate("one") + await segue.receive(str) + await segue.generate("two", mode="batch")
        )

    desk = Desk()
    desk.fake.when("one").reply("1")
    desk.fake.when("two").reply("2")
    async with desk.engine(mode="batch") as engine:
        run = await engine.start(flow(), id="it")
        while not any(entry.kind == "receive" for entry in await desk.entries()):
            await asyncio.sleep(0.001)
    async with desk.engine(mode="live") as engine:
        run = await engine.get("it")
        await run.tell("+")
        assert await run == "1+2"
    assert len(desk.fake.calls) == 2
