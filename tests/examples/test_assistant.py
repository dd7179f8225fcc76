"""An assistant that is killed in the middle of an answer, and the short one as it stands."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.testing import FakeModel, Simulator, ToolUse
from segue.testing.simulator import ToolCall

from .folders import EXAMPLES, Folder
from .test_examples import load

folder = Folder("assistant")
chat = load("chat")


# ---------------------------------------------------------------- chat.py
async def test_the_short_one_as_it_stands() -> None:
    def rule(body: dict[str, Any]) -> str:
        said = [message["content"] for message in body["messages"] if message["role"] == "user"]
        return "Ada likes tea." if "remember" in said[-1] else f"{len(said)}: {said[-1]}"

    async with Simulator(rule=rule) as sim:
        async with segue.Engine(model=f"openai:m@{sim.base_url}") as engine:
            for n, text in enumerate(("Hello", "And again"), 1):
                said = [token async for token in chat.chat(engine, "ada", text)]
                assert "".join(said) == f"{n}: {text}"
                assert len(said) > 1


# ---------------------------------------------------------------- assistant/
def model() -> FakeModel:
    model = FakeModel()
    model.when("remind me").reply([ToolUse("schedule", prompt="Tea is due", seconds=60.0)], "I will.")
    model.when("Tea is due").reply("It is time for tea.")
    model.when("Send a letter").reply([ToolUse("send", to="bob", text="hi")], "Done.")
    return model


async def test_tools_settings_and_prompts_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assistant = folder.assistant
    async with model().answer("May send be called?", segue.Approve()) as fake:
        fake.when("Which tools").reply(lambda call: " ".join(tool.name for tool in call.tools))
        aide = await fake.engine.start(assistant.Aide("Ada"), id="aide/ada")
        async with aide.subscribe(assistant.Spoken()) as feed:
            assert feed.snapshot == 0
            assert await aide.request(assistant.Say("Please remind me of tea")) == "I will."
            assert await anext(aiter(feed)) == "It is time for tea."
        assert await aide.request(assistant.Say("Which tools have you?")) == "schedule"
        await aide.tell(assistant.Configure(tools=["send", "nonsense"]))
        assert await aide.request(assistant.Say("Which tools are there?")) == "schedule send"
        assert await aide.request(assistant.Say("Send a letter")) == "Done."
        await aide.tell(assistant.Configure(style="Shout."))
        await aide.request(assistant.Say("Which tools now?"))
        assert fake.calls[-1].texts()[0] == "You help Ada. Shout."
    assert (tmp_path / "outbox.txt").read_text() == "bob: hi\n"


class Terminal:
    """The program, as somebody at a terminal has it."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def read(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()


@asynccontextmanager
async def terminal(sim: Simulator, where: Path) -> AsyncIterator[Terminal]:
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": sim.base_url,
        "OPENAI_API_KEY": "any",
        "MODEL": "openai:m",
    }
    program = str(EXAMPLES / "assistant" / "assistant.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, "ada", cwd=where, env=environment, stdin=PIPE, stdout=PIPE
    )
    try:
        yield Terminal(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.slow
async def test_a_session_survives_kills(tmp_path: Path) -> None:
    asked = asyncio.Event()

    def rule(body: dict[str, Any]) -> Any:
        messages = body["messages"]
        asked.set()
        if messages[-1]["role"] == "tool":
            return "I will."
        if "remind me" in messages[-1]["content"]:
            return ToolCall("schedule", {"prompt": "Tea!", "seconds": 0.1}, id="call_1")
        users = [message["content"] for message in messages if message["role"] == "user"]
        return f"{len(users)}: {users[-1]}"

    async with Simulator(rule=rule, latency=timedelta(seconds=0.5)) as sim, asyncio.timeout(50):
        async with terminal(sim, tmp_path) as ada:
            assert await ada.read() == "0 messages so far"
            await ada.type("Hello")
            assert await ada.read() == "1: Hello"
            await ada.type("How are you?")
            asked.clear()
            await asked.wait()
            ada.process.kill()  # in the middle of an answer
        async with terminal(sim, tmp_path) as ada:
            assert await ada.read() in [f"{n} messages so far" for n in (2, 3, 4)]
            await ada.type("Still there?")
            assert await ada.read() == "3: Still there?"  # it has answered the one before, too
            await ada.type("Now remind me")
            assert await ada.read() == "I will."
            assert await ada.read() == "(unasked) 5: Tea!"
            ada.process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
            assert await ada.process.wait() == 0
