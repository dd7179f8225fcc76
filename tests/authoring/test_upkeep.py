"""Conversations kept below their model's window: the same live, in batch and in a replay."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

import segue
from segue import Message, Summarise, Trim
from segue.core.upkeep import HEADING
from segue.model.errors import ContextOverflow, InvalidValue, UnknownName
from segue.model.run import Head
from segue.ports.provider import OVERFLOW, CallFault
from segue.testing import ToolUse
from tests.runtime.lives import Desk, everywhere


async def look_up_page(n: int) -> str:
    """Look a page up."""
    return f"page {n}: " + "word " * 60


def told(desk: Desk) -> list[list[str]]:
    """The roles and texts of what was sent, call by call."""
    return [[f"{m.role}: {str(m.content)[:30]}" for m in call.messages] for call in desk.fake.calls]


@segue.flow
async def upkeep_tools(policy: str) -> str:
    kind: Any = {"trim": Trim, "summarise": Summarise}[policy]
    upkeep = kind(window=500) if kind is Trim else kind(window=500, words=20)
    return await segue.generate("Read it all.", tools=[look_up_page], upkeep=upkeep, max_turns=20)


def reader(desk: Desk, pages: int = 12) -> None:
    desk.fake.when("Read it all").reply(*[ToolUse("look_up_page", n=n) for n in range(pages)], "read")
    desk.fake.when("Write at most 20 words").reply("SUM1", "SUM2", "SUM3", "SUM4", "SUM5", "SUM6")


async def test_a_tool_loop_is_trimmed() -> None:
    seen = []
    for mode in ("live", "batch"):
        desk = Desk(verify=True)
        reader(desk)
        assert await desk.run(upkeep_tools("trim"), mode=mode) == "read"
        seen.append(told(desk))
    assert seen[0] == seen[1]
    assert all(call[0] == "user: Read it all." for call in seen[0])
    assert max(len(call) for call in seen[0]) < 9  # of 25 messages
    follows = [later[: len(call)] == call for call, later in pairwise(seen[0])]
    assert follows.count(False) <= 5  # most requests begin with the one before


async def test_a_tool_loop_is_summarised() -> None:
    seen = []
    for mode in ("live", "batch"):
        desk = Desk(verify=True)
        reader(desk)
        assert await desk.run(upkeep_tools("summarise"), mode=mode) == "read"
        seen.append(told(desk))
        texts = [call.text for call in desk.fake.calls]
        assert any("SUM1" in text and "Write at most" in text for text in texts)  # goes into the next
        sent = [text for text in texts if "Write at most" not in text]
        assert any(HEADING + "SUM1" in text for text in sent)
        assert all(text.count(HEADING) <= 1 for text in sent)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("policy", ["trim", "summarise"])
async def test_it_survives_crashes_anywhere(policy: str) -> None:
    def check(desk: Desk, head: Head) -> None:
        assert (head.status, head.value) == ("done", b'"read"')

    assert await everywhere(lambda: upkeep_tools(policy), lambda desk: reader(desk, 5), check) > 20


@segue.flow
async def upkeep_chat(turns: int) -> int:
    messages: list[Message] = []
    with segue.using(upkeep=Trim(window=2000)):
        for number in range(turns):
            messages.append(Message("user", f"question {number} " + "x" * 200))
            messages.append(Message("assistant", await segue.generate(messages)))
    return len(messages)


async def test_the_beginning_stays_while_a_chat_grows() -> None:
    desk = Desk(verify=True)
    desk.fake.when("question").reply("answer " + "y" * 100)
    assert await desk.run(upkeep_chat(40)) == 80
    sent = told(desk)
    assert max(map(len, sent)) < 36
    assert sum(call[0] != before[0] for before, call in pairwise(sent)) <= 5


@segue.flow
async def upkeep_listed(length: int) -> str:
    messages = [Message("user", "old " * length), Message("assistant", "ok"), Message("user", "new")]
    reply = await segue.generate(messages, returns=segue.Reply[str], upkeep=Trim())
    return str(len(reply.messages))


@segue.flow
async def upkeep_unsaid() -> str:
    return await segue.generate("Read it all.", tools=[look_up_page], max_turns=20)


async def test_it_goes_with_a_run() -> None:
    desk = Desk(verify=True, park="always")
    reader(desk)
    assert await desk.run(upkeep_unsaid(), mode="batch", upkeep=Summarise(window=500, words=20)) == "read"
    assert (await desk.head()).spec.config.upkeep == Summarise(window=500, words=20)
    assert any(HEADING in call.text for call in desk.fake.calls)


async def test_the_window_is_that_of_the_model_and_recorded() -> None:
    desk = Desk(verify=True)
    desk.fake.when("new").reply("answer")
    with pytest.raises(UnknownName, match=r"upkeep=segue\.Trim\(window=128_000\)"):
        await desk.run(upkeep_listed(2000))
    assert await desk.run(upkeep_listed(10), id="short") == "4"  # nobody has to know


async def test_listed_windows() -> None:
    from segue.providers.windows import window

    assert window("openai:gpt-5-mini") == 400_000
    assert (window("gemini:gemini-2.5-flash") or 0) >= 1_000_000
    assert window("openai:gpt-5-mini@http://127.0.0.1:1/v1") is None
    assert window("nobody:knows") is None


@segue.flow
async def upkeep_none_helps(text: str) -> str:
    return await segue.generate(text, upkeep=Trim(window=100))


async def test_an_overflow_that_comes_nevertheless() -> None:
    desk = Desk()
    desk.fake.when("big").reply(CallFault(400, "too long", again=False, code=OVERFLOW))
    with pytest.raises(ContextOverflow):
        await desk.run(upkeep_none_helps("big " * 500))


def test_shares_that_cant_be() -> None:
    with pytest.raises(InvalidValue, match="0 <= keep < at <= 1"):
        Trim(keep=0.9)
    with pytest.raises(InvalidValue, match="below zero"):
        Summarise(window=-1)
