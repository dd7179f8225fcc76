"""`instructor` inside a flow. Its pins keep it from the newest SDKs, so it is tried in an environment of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel, field_validator

import segue
from segue.testing.simulator import Simulator, ToolCall

from .both import both, simulated

instructor = pytest.importorskip("instructor", reason="`make test` tries it in an environment of its own")

CLIENT: Any


class Person(BaseModel):
    name: str
    age: int

    @field_validator("name")
    @classmethod
    def is_loud(cls, name: str) -> str:
        if not name.isupper():
            raise ValueError("it must be in upper case")
        return name


def rule(body: dict[str, Any]) -> Any:
    """Is told off once."""
    again = any("must be in upper case" in str(message) for message in body["messages"])
    return ToolCall("Person", {"name": "ADA" if again else "Ada", "age": 36})


@pytest.fixture(autouse=True)
async def sim() -> AsyncIterator[Simulator]:
    global CLIENT
    async with simulated(rule=rule) as sim:
        client = openai.AsyncOpenAI(base_url=sim.base_url, api_key="key", http_client=segue.http_client())
        CLIENT = instructor.from_openai(client)
        yield sim


async def person(text: str) -> str:
    messages = [{"role": "user", "content": text}]
    found = await CLIENT.chat.completions.create(
        model="m", response_model=Person, max_retries=3, messages=messages
    )
    return f"{found.name} {found.age}"


@segue.flow
async def instructor_people(text: str) -> list[str]:
    return await asyncio.gather(*(person(f"{text} {number}") for number in range(3)))


async def test_answers_that_are_sent_back(caplog: pytest.LogCaptureFixture):
    assert await both(lambda: instructor_people("who")) == ["ADA 36"] * 3
    assert "isn't recorded" not in caplog.text


@segue.flow
async def instructor_streams(text: str) -> list[str]:
    partial = CLIENT.chat.completions.create_partial(
        model="m",
        response_model=Person,
        messages=[{"role": "user", "content": f"{text}: it must be in upper case"}],
    )
    return [str(each.age) async for each in partial][-1:]


async def test_partial_answers():
    assert await both(lambda: instructor_streams("who")) == ["36"]
