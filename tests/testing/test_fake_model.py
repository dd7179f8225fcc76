"""FakeModel: what it is told, what it says, and how a test fails that meets the unexpected."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
import pytest

import segue
from segue.model.chat import ChatReply
from segue.model.errors import BadAnswer, InvalidValue, ModelFailed, NotInRun, RunHeld, Truncated
from segue.ports.provider import CallFault
from segue.testing import FakeModel, ModelCall, ToolUse


@dataclass
class Label:
    topic: Literal["billing", "bug", "other"]
    urgent: bool


class Point(msgspec.Struct):
    x: int
    y: int = 0


@segue.flow
async def classify(ticket: str) -> Label:
    return await segue.generate(f"Classify: {ticket}", returns=Label)


@segue.flow
async def say(prompt: str) -> str:
    return await segue.generate(prompt)


async def test_a_flow_is_a_function() -> None:
    fake = FakeModel()
    fake.when("Classify").reply(Label("bug", urgent=True))
    async with fake:
        assert await classify("It crashed") == Label("bug", urgent=True)
    (call,) = fake.calls
    assert call.text == "Classify: It crashed"
    assert call.answer is not None
    assert call.answer.name == "Label"
    with pytest.raises(NotInRun):
        await classify("It crashed")


async def test_values_come_in_order_and_the_last_repeats() -> None:
    fake = FakeModel()
    fake.when("").reply("one", "two")
    async with fake:
        assert [await say("again") for _ in range(4)] == ["one", "two", "two", "two"]


async def test_a_rule_without_a_reply_is_named() -> None:
    with pytest.raises(
        AssertionError, match=r"knows when\('again'\), which has no reply\(\), when\('else'\)\."
    ):
        async with FakeModel().when("again").when("else").reply("x"):
            await say("again")
    with pytest.raises(InvalidValue, match=r"when\(\): expected a text"):
        FakeModel().when(3)  # type: ignore[arg-type]


async def test_the_longest_text_wins() -> None:
    fake = FakeModel()
    fake.when("").reply("anything")
    fake.when("Answer the").reply("long")
    fake.when("Answer").reply("short")
    async with fake:
        assert await say("Answer the phone") == "long"
        assert await say("Answer me") == "short"
        assert await say("Hello") == "anything"
        fake.when("Answer").reply("a later one of the same text")
        assert await say("Answer me") == "a later one of the same text"


async def test_rules_by_model() -> None:
    @segue.flow
    async def two() -> list[str]:
        return [
            await segue.generate("Speak", model=model)
            for model in ("openai:big", "anthropic:small", "judge", "openai:other")
        ]

    fake = FakeModel()
    fake.when("Speak").reply("any")
    fake.when("Speak", model="big").reply("big")
    fake.when("Speak", model="anthropic:small").reply("small")
    fake.when("Speak", model="judge").reply("judge")
    async with fake:
        assert await two() == ["big", "small", "judge", "any"]
    assert [call.model for call in fake.calls] == [
        "openai:big",
        "anthropic:small",
        "fake:judge",
        "openai:other",
    ]


@pytest.mark.parametrize(
    ("tp", "value"),
    [
        (Label, Label("other", urgent=False)),
        (Point, Point(1, 2)),
        (int, 7),
        (list[str], ["a", "b"]),
        (list[Point], [Point(1)]),
        (dict[str, int], {"a": 1}),
        (dict[str, int], {"value": 1}),
        (Literal["yes", "no"], "yes"),
        (Label | None, None),
        (bool, True),
        (datetime, datetime(2024, 5, 6, tzinfo=UTC)),
    ],
)
async def test_typed_replies(tp: object, value: object) -> None:
    @segue.flow
    async def ask() -> str:
        got = await segue.generate("Say", returns=tp)
        assert got == value
        return repr(got)

    fake = FakeModel()
    fake.when("Say").reply(value)
    async with fake:
        assert await ask() == repr(value)


async def test_a_pydantic_model_as_reply() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", a=(int, ...))

    @segue.flow
    async def ask() -> int:
        return (await segue.generate("Say", returns=model)).a

    fake = FakeModel()
    fake.when("Say").reply(model(a=3))
    async with fake:
        assert await ask() == 3


async def test_an_unfit_answer_is_sent_back() -> None:
    fake = FakeModel()
    fake.when("Classify").reply("no JSON", Label("bug", urgent=False))
    async with fake:
        assert await classify("x") == Label("bug", urgent=False)
    assert len(fake.calls) == 2
    assert "can't be used" in fake.calls[1].text


async def test_tools() -> None:
    looked: list[str] = []

    async def look_up(name: str) -> int:
        """Look up a name."""
        looked.append(name)
        return len(name)

    @segue.flow
    async def agent() -> str:
        return await segue.generate("Find Ann and Bob", tools=[look_up])

    fake = FakeModel()
    fake.when("Find").reply(
        [ToolUse("look_up", name="Ann"), ToolUse("look_up", name="Bobby")],
        ToolUse("look_up", name="C"),
        "done",
    )
    async with fake:
        assert await agent() == "done"
    assert sorted(looked) == ["Ann", "Bobby", "C"]
    assert [tool.name for tool in fake.calls[0].tools] == ["look_up"]
    assert [message.content for message in fake.calls[1].messages if message.role == "tool"] == ["3", "5"]


async def test_a_tool_that_needs_approval() -> None:
    async def refund(amount: int) -> str:
        """Refund."""
        return f"{amount} refunded"

    @segue.flow
    async def agent() -> str:
        return await segue.generate("Help", tools=[segue.tool(refund, approve=True)])

    fake = FakeModel()
    fake.when("Help").reply(ToolUse("refund", amount=5), lambda call: call.messages[-1].content)
    fake.answer("May refund be called?", segue.Edit(amount=3))
    async with fake:
        assert await agent() == "3 refunded"


async def test_failing_calls_are_tried_again_without_waiting() -> None:
    fake = FakeModel()
    fake.when("a").reply(CallFault(429, "slow down", again=True), ConnectionError("reset"), "ok")
    fake.when("refused").reply(CallFault(400, "no", again=False))
    fake.when("wrong").reply(ValueError("what"))
    fake.when("lasting").reply(TimeoutError())
    async with fake:
        assert await say("a") == "ok"
        for prompt, status in (("refused", 400), ("wrong", 400), ("lasting", 503)):
            with pytest.raises(ModelFailed) as failed:
                await say(prompt)
            assert failed.value.status == status


async def test_a_reply_may_be_made_of_the_call_or_whole() -> None:
    def answer(call: ModelCall) -> str:
        return call.text[::-1]

    fake = FakeModel()
    fake.when("").reply(answer, ChatReply("cut", stop="length"))
    async with fake:
        assert await say("abc") == "cba"
        with pytest.raises(Truncated, match="raise max_tokens="):
            await say("abc")


async def test_an_unmatched_call_fails_the_test_and_prints_itself() -> None:
    fake = FakeModel()
    fake.when("Answer").reply("x")
    with pytest.raises(AssertionError) as failed:
        async with fake:
            await classify("It crashed")
    text = str(failed.value)
    assert "Classify: It crashed" in text
    assert "when('Answer')" in text
    assert "model.when('Classify: It crashed').reply(Label(…))" in text


async def test_an_unmatched_call_that_the_flow_swallows_fails_the_test() -> None:
    @segue.flow
    async def careless() -> str:
        try:
            return await segue.generate("Hello")
        except ModelFailed:
            return "never mind"

    with pytest.raises(AssertionError, match=r"model.when\('Hello'\)"):
        async with FakeModel() as fake:
            await fake.engine.run(careless())


async def test_asks() -> None:
    @segue.flow
    async def poll() -> list[str]:
        return [await segue.ask(question) for question in ("Your name?", "Your age?", "Your name again?")]

    fake = FakeModel()
    fake.answer("name", "Ann").answer("age", "7").answer("name again", "still Ann")
    async with fake:
        assert await poll() == ["Ann", "7", "still Ann"]


async def test_an_unanswered_ask_fails_the_test() -> None:
    @segue.flow
    async def stuck() -> bool:
        return await segue.ask("Send this?", show={"draft": 1}, returns=bool)

    with pytest.raises(AssertionError) as failed:
        async with FakeModel():
            await stuck()
    assert "model.answer('Send this?', …)" in str(failed.value)
    assert '{"draft":1}' in str(failed.value)


async def test_an_approval_that_nobody_gives_names_what_may_be_answered() -> None:
    async def refund(amount: int, note: str = "") -> str:
        """Refund."""
        return f"{amount} refunded {note}"

    @segue.flow
    async def agent() -> str:
        return await segue.generate("Help", tools=[segue.tool(refund, approve=True)])

    fake = FakeModel()
    fake.when("Help").reply(ToolUse("refund", amount=5))
    with pytest.raises(AssertionError) as failed:
        async with fake:
            await agent()
    told = str(failed.value)
    assert "is segue.Approve(), segue.Edit(amount=…, note=…) or segue.Deny('why')." in told
    assert "model.answer('May refund be called?', segue.Approve())" in told
    assert "properties" not in told


async def test_an_answer_that_stays_unfit_is_told_in_one_sentence() -> None:
    @segue.flow
    async def counts() -> int:
        return await segue.generate("How many?", returns=int, repairs=0)

    fake = FakeModel()
    fake.when("How many").reply("hello")
    async with fake:
        with pytest.raises(BadAnswer, match=r"[^.]; its last was 'hello'"):
            await counts()


async def test_an_answer_of_the_wrong_type_fails_the_test() -> None:
    @segue.flow
    async def stuck() -> bool:
        return await segue.ask("Send this?", returns=bool)

    fake = FakeModel()
    fake.answer("Send", "perhaps")
    with pytest.raises(AssertionError, match="perhaps"):
        async with fake:
            await stuck()


async def test_an_ask_that_nobody_answers_in_time() -> None:
    @segue.flow
    async def patient() -> list[str]:
        first = await segue.ask("Anyone?", timeout=timedelta(days=2), default="nobody")
        try:
            await segue.ask("Still?", timeout=timedelta(days=2))
        except TimeoutError:
            return [first, "late"]
        return [first]

    async with FakeModel():
        assert await patient() == ["nobody", "late"]


async def test_an_ask_that_nobody_answers_within_a_timeout() -> None:
    @segue.flow
    async def patient() -> str:
        try:
            async with segue.timeout(timedelta(days=2)):
                return await segue.ask("Anyone?")
        except TimeoutError:
            return await segue.ask("Really no one?")

    with pytest.raises(AssertionError, match="Really"):
        async with FakeModel():
            await patient()
    async with FakeModel().answer("Really", "me"):
        assert await patient() == "me"


async def test_days_take_no_time() -> None:
    @segue.flow
    async def sleeper() -> float:
        begin = segue.now()
        await segue.sleep(timedelta(days=3))
        async with segue.timeout(timedelta(hours=2)):
            await segue.sleep(timedelta(hours=1))
        return (segue.now() - begin).total_seconds()

    begin = asyncio.get_running_loop().time()
    async with FakeModel():
        assert await sleeper() == pytest.approx(3 * 86400 + 3600, abs=60)
    assert asyncio.get_running_loop().time() - begin < 2


async def test_a_step_at_work_is_not_timed_out_by_the_clock() -> None:
    """Virtual time stands while a step takes real time, on a thread too."""

    @segue.step
    def slow() -> str:
        import time

        time.sleep(0.05)
        return "slow"

    @segue.step
    async def slow_too() -> str:
        await asyncio.sleep(0.05)
        return "slow too"

    @segue.flow
    async def race() -> list[str]:
        async with segue.timeout(timedelta(seconds=30)):
            return [await slow(), await slow_too()]

    async with FakeModel():
        assert await race() == ["slow", "slow too"]


async def test_retries_of_steps_take_no_time() -> None:
    tries = 0

    @segue.step(retry=segue.Retry(4, wait=timedelta(minutes=10)))
    async def flaky() -> int:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise ValueError("not yet")
        return tries

    @segue.flow
    async def stubborn() -> int:
        return await flaky()

    async with FakeModel():
        assert await stubborn() == 4


async def test_flows_at_once_and_batches() -> None:
    fake = FakeModel()
    fake.when("").reply(lambda call: call.text.upper())
    async with fake:
        assert await asyncio.gather(say("a"), say("b")) == ["A", "B"]
        job = fake.engine.map(say, [f"row {i}" for i in range(20)], id="rows", mode="batch")
        assert await job == [f"ROW {i}" for i in range(20)]
    assert len(fake.remote.jobs) == 1


async def test_a_batch_line_that_fails_goes_round_again() -> None:
    fake = FakeModel()
    fake.when("").reply(CallFault(500, "oops", again=True), "ok")
    async with fake:
        assert await fake.engine.run(say("x"), mode="batch") == "ok"
    assert len(fake.remote.jobs) == 2


async def test_tokens_are_streamed() -> None:
    fake = FakeModel()
    fake.when("").reply("a b  c\nd ")
    async with fake:
        run = await fake.engine.start(say("x"))
        assert "".join([piece async for piece in run.text()]) == "a b  c\nd "


async def test_embeddings() -> None:
    @segue.flow
    async def near() -> list[list[float]]:
        return await segue.embed(["a", "b", "a"])

    async with FakeModel():
        a, b, again = await near()
    assert a == again != b


async def test_reply_needs_a_rule() -> None:
    with pytest.raises(TypeError, match="when"):
        FakeModel().reply("x")


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_calls_made_at_once_are_answered_in_the_order_made(mode: str) -> None:
    @segue.flow
    async def three() -> list[str]:
        return await asyncio.gather(*(segue.generate(f"Say {i}") for i in range(12)))

    fake = FakeModel()
    fake.when("Say").reply(*"abcdefghijkl")
    async with fake:
        assert await fake.engine.run(three(), mode=mode) == list("abcdefghijkl")


@segue.flow
async def asks_a_number() -> int:
    return await segue.ask("How many?", returns=int)


@pytest.mark.parametrize("answers", [{}, {"How many?": "many"}])
async def test_who_waits_at_its_engine_hears_what_was_unexpected(answers: dict[str, object]) -> None:
    model = FakeModel()
    for question, value in answers.items():
        model.answer(question, value)
    with pytest.raises(AssertionError, match=r"How many\?"):
        async with model, asyncio.timeout(5):
            await model.engine.run(asks_a_number())


@segue.flow(budget=segue.Budget(tokens=10))
async def dear() -> str:
    return await segue.generate("a long letter", max_tokens=1000)


class Go(segue.Note): ...


@segue.flow
async def patient(times: int) -> str:
    """Waits for a child that is held, `times` times beneath itself, and for nothing else."""
    if times:
        (said,) = await segue.map(patient, [times - 1])
        return said
    (said,) = await segue.map(lambda _: dear(), [0])
    return said


@segue.flow
async def busy() -> str:
    """Waits for a child that is held, and for a message."""
    child = await segue.spawn(dear())
    waits = {asyncio.ensure_future(child_of(child)), asyncio.ensure_future(segue.receive(Go))}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    return "went"


async def child_of(run: segue.Run[str]) -> str:
    return await run


@pytest.mark.parametrize("times", [0, 2])
async def test_a_flow_beneath_which_a_run_is_held_doesnt_wait_for_ever(times: int) -> None:
    async with FakeModel().when("letter").reply("dear") as model:
        with pytest.raises(RunHeld, match=r"it waits for run '[\w.-]+', which is held: no budget is left"):
            await patient(times)
        assert not model.calls


async def test_a_flow_that_waits_for_mail_beside_a_held_run_goes_on_with_it() -> None:
    async with FakeModel().when("letter").reply("dear") as model:
        going = asyncio.create_task(busy_here())
        while not [head for head in await model.engine.store.runs() if head.status == "held"]:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        await (await model.engine.get("busy-1")).tell(Go())
        assert await going == "went"


async def busy_here() -> str:
    return await busy()
