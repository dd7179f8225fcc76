"""An assistant for each user: tools to plug in, settings that change as it runs, prompts for later. It survives kills.

`python assistant.py ada` talks with Ada's. Kill it in the middle of an answer, start it again: it goes on.
"""

import asyncio
import os
import sys
from dataclasses import dataclass
from datetime import timedelta

from plugins import TOOLS

import segue


class Say(segue.Request[str]):
    text: str


class Think(segue.Note):
    """A prompt that it gave itself, for now."""

    prompt: str


class Configure(segue.Note):
    """Holds from the next message on; what is None stays as it is."""

    style: str | None = None
    tools: list[str] | None = None


class Spoken(segue.Subscription[int, str]):
    """What it says unasked; at first, how many messages there have been."""


@segue.flow  # a tool that is a flow is part of the run that calls it, so it may set timers
async def schedule(prompt: str, seconds: float, every_day: bool = False) -> str:
    """Have yourself think of something later, once or every day."""
    daily = timedelta(days=1) if every_day else None
    await segue.me().tell(Think(prompt), after=timedelta(seconds=seconds), every=daily, key=prompt)
    return f"You will think of it in {seconds} s."


@dataclass
class Settings:
    style: str = "Be brief."
    tools: tuple[str, ...] = ()


class Aide(segue.Actor[None]):
    user: str
    settings: Settings = segue.field(default_factory=Settings)
    history: list[segue.Message] = segue.field(default_factory=list)

    @segue.on
    async def say(self, m: Say) -> str:
        return await self._think(m.text)

    @segue.on
    async def think(self, m: Think) -> None:
        await segue.publish(Spoken, await self._think(m.prompt))

    @segue.on
    async def configure(self, m: Configure) -> None:
        if m.style is not None:
            self.settings.style = m.style
        if m.tools is not None:
            self.settings.tools = tuple(name for name in m.tools if name in TOOLS)

    @segue.on
    async def spoken(self, _: Spoken) -> int:
        return len(self.history)

    async def _think(self, text: str) -> str:
        self.history.append(segue.Message("user", text))
        system = f"You help {self.user}. {self.settings.style}"
        tools = [schedule, *(TOOLS[name] for name in self.settings.tools)]
        reply = await segue.generate(self.history, returns=segue.Reply[str], system=system, tools=tools)
        self.history = [m for m in reply.messages if m.role != "system"]  # what the tools said too
        return reply.value


async def main(user: str) -> None:
    model = os.environ.get("MODEL", "openai:gpt-5-mini")
    async with segue.Engine("sqlite:assistant.db", model=model) as engine:
        aide = await engine.start(Aide(user), id=f"aide/{user}")
        async with aide.subscribe(Spoken()) as feed, asyncio.TaskGroup() as group:
            print(f"{feed.snapshot} messages so far", flush=True)
            unasked = group.create_task(show(feed))
            while line := await asyncio.to_thread(sys.stdin.readline):
                match line.strip().partition(" "):
                    case "/style", _, style:
                        await aide.tell(Configure(style=style))
                    case "/tools", _, names:
                        await aide.tell(Configure(tools=names.split()))
                    case _:
                        async for token in aide.request(Say(line.strip())).text():
                            print(token, end="", flush=True)
                        print(flush=True)
            unasked.cancel()


async def show(feed: segue.Feed[int, str]) -> None:
    async for text in feed:
        print(f"(unasked) {text}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
