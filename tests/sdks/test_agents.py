"""Agents of other libraries inside a flow."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

import openai
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import segue
from segue.authoring.agents import Tools
from segue.testing.simulator import Simulator, ToolCall, ToolCalls

from .both import both, run, simulated

CLIENT: openai.AsyncOpenAI


class City(BaseModel):
    name: str
    people: int


@segue.step
async def population(city: str) -> int:
    """How many live there."""
    RAN.append(city)
    return 100 * len(city)


def nearby(city: str) -> str:
    """What is nearby; not recorded."""
    RAN.append(city)
    return f"near {city}"


RAN: list[str] = []


def rule(body: dict[str, Any]) -> Any:
    """Calls the tools that it is asked to, both at once, then tells what they said, in the form that is wanted."""
    tools = [tool["function"]["name"] for tool in body.get("tools", [])]
    results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
    asked = json.dumps(body["messages"])
    wanted = [name for name in ("population", "nearby") if name in tools and f"use {name}" in asked]
    if wanted and not results:
        return ToolCalls(*(ToolCall(name, {"city": city}) for name in wanted for city in ("Rome", "Paris")))
    if "final_result" in tools:
        return ToolCall("final_result", {"name": "Rome" if "again" not in asked else "ROME", "people": 400})
    return f"They say {' and '.join(results)}."


@pytest.fixture(autouse=True)
async def sim() -> AsyncIterator[Simulator]:
    global CLIENT
    RAN.clear()
    async with simulated(rule=rule) as sim:
        CLIENT = openai.AsyncOpenAI(base_url=sim.base_url, api_key="key", http_client=segue.http_client())
        yield sim


def model() -> OpenAIChatModel:
    return OpenAIChatModel("m", provider=OpenAIProvider(openai_client=CLIENT))


@segue.flow
async def pydantic_ai_tools(question: str) -> str:
    agent = Agent(model(), tools=[population])
    return (await agent.run(question)).output


async def test_pydantic_ai_with_tools():
    assert await both(lambda: pydantic_ai_tools("use population")) == "They say 400 and 500."
    assert sorted(RAN) == sorted(["Rome", "Paris"] * 3)  # once a run: a step


@segue.flow
async def pydantic_ai_typed(question: str) -> City:
    agent = Agent(model(), output_type=City)

    @agent.output_validator
    def loud(city: City) -> City:
        if not city.name.isupper():
            raise ModelRetry("say it again, louder")
        return city

    return (await agent.run(question)).output


async def test_pydantic_ai_with_a_typed_answer_that_is_judged(caplog: pytest.LogCaptureFixture):
    assert await both(lambda: pydantic_ai_typed("which")) == City(name="ROME", people=400)
    assert "isn't recorded" not in caplog.text


@segue.flow
async def pydantic_ai_streams(question: str) -> list[str]:
    agent = Agent(model(), tools=[population])
    async with agent.run_stream(question) as result:
        return [text async for text in result.stream_text(delta=True, debounce_by=None)]


async def test_pydantic_ai_streams():
    assert await both(lambda: pydantic_ai_streams("use population")) == [
        "They ",
        "say ",
        "400 ",
        "and ",
        "500.",
    ]


@segue.flow
async def pydantic_ai_several(question: str) -> list[str]:
    agent = Agent(model(), tools=[population])
    runs = await asyncio.gather(*(agent.run(f"{question} {n}") for n in range(3)))
    return [each.output for each in runs]


async def test_pydantic_ai_agents_side_by_side():
    assert len(set(await both(lambda: pydantic_ai_several("use population")))) == 1


@segue.flow
async def pydantic_ai_unrecorded(question: str) -> str:
    return (await Agent(model(), tools=[nearby]).run(question)).output


async def test_a_tool_that_nobody_records_is_told_of(caplog: pytest.LogCaptureFixture):
    Tools._told.clear()
    with caplog.at_level(logging.WARNING, "segue"):
        await run(lambda: pydantic_ai_unrecorded("use nearby"), "batch")
        await run(lambda: pydantic_ai_unrecorded("use nearby"), "live")
    told = [record.message for record in caplog.records if "'nearby'" in record.message]
    assert len(told) == 1
    assert "tools=[segue.step(nearby)]" in told[0]


async def test_tools_that_are_steps_arent_told_of(caplog: pytest.LogCaptureFixture):
    Tools._told.clear()
    with caplog.at_level(logging.WARNING, "segue"):
        await run(lambda: pydantic_ai_tools("use population"), "batch")
        await run(lambda: pydantic_ai_tools("use population"), "live", park="always")
    assert "isn't recorded" not in caplog.text


def chat_model(**options: Any) -> ChatOpenAI:
    sim = str(CLIENT.base_url)
    return ChatOpenAI(
        model="m",
        api_key="key",
        base_url=sim,
        http_async_client=segue.http_client(),
        **options,  # type: ignore[arg-type]
    )


@segue.flow
async def langchain_calls(text: str) -> list[str]:
    chat = chat_model()
    first = await chat.ainvoke(text)
    several = await chat.abatch([f"{text} {n}" for n in range(3)])
    done = [each async for _, each in chat.abatch_as_completed([f"{text} more {n}" for n in range(2)])]
    pieces = [str(piece.content) async for piece in chat.astream(text)]
    typed = await chat.with_structured_output(City, method="function_calling").ainvoke(text)
    return [str(each.content) for each in (first, *several)] + ["|".join(pieces), str(len(done)), repr(typed)]


async def test_langchain_chat_models():
    said = await both(lambda: langchain_calls("hi"))
    assert said[0] == "They say ."


class Talk(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def graph(*, streaming: bool = False) -> Any:
    """An agent as a graph: the model, its tools, and back."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "population", "parameters": schema}}
    chat = chat_model(streaming=streaming).bind_tools([tool])

    async def think(talk: Talk) -> Talk:
        return {"messages": [await chat.ainvoke(talk["messages"])]}

    async def act(talk: Talk) -> Talk:
        last = talk["messages"][-1]
        assert isinstance(last, AIMessage)
        results = await asyncio.gather(*(population(**call["args"]) for call in last.tool_calls))
        told = zip(last.tool_calls, results, strict=True)
        return {"messages": [ToolMessage(str(result), tool_call_id=call["id"]) for call, result in told]}

    def more(talk: Talk) -> str:
        return "act" if getattr(talk["messages"][-1], "tool_calls", None) else END

    built = StateGraph(Talk).add_node("think", think).add_node("act", act).add_edge(START, "think")
    return built.add_conditional_edges("think", more).add_edge("act", "think").compile()


@segue.flow
async def langgraph_agent(question: str) -> str:
    talk = await graph().ainvoke({"messages": [HumanMessage(question, id="q")]})
    return str(talk["messages"][-1].content)


async def test_langgraph():
    assert await both(lambda: langgraph_agent("use population")) == "They say 400 and 500."
    assert len(RAN) == 6


@segue.flow
async def langgraph_streams(question: str) -> str:
    told = []
    async for message, _ in graph(streaming=True).astream(
        {"messages": [HumanMessage(question, id="q")]}, stream_mode="messages"
    ):
        if isinstance(message, AIMessage) and message.content:
            told.append(str(message.content))
    return "|".join(told)


async def test_langgraph_streams():
    assert await both(lambda: langgraph_streams("use population")) == "They |say |400 |and |500."
