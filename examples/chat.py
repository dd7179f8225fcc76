from collections.abc import AsyncIterator
from datetime import timedelta

import segue


class Say(segue.Request[str]):
    text: str


class Tidy(segue.Note): ...


class Assistant(segue.Actor[None]):  # fields are its durable state
    user: str
    notes: str = ""
    history: list[segue.Message] = segue.field(default_factory=list)

    @segue.on
    async def say(self, m: Say) -> str:
        self.history.append(segue.Message("user", m.text))
        text = await segue.generate(self.history, system=f"You help {self.user}. {self.notes}")
        self.history.append(segue.Message("assistant", text))
        return text

    @segue.on(mode="batch")  # its memory is written at half price
    async def tidy(self, _: Tidy) -> None:
        self.notes = await segue.generate([*self.history, segue.Message("user", "What should you remember?")])
        self.history = self.history[-20:]


async def chat(engine: segue.Engine, user: str, text: str) -> AsyncIterator[str]:
    me = await engine.start(Assistant(user=user), id=f"assistant/{user}")  # started once, found for months
    await me.tell(Tidy(), every=timedelta(days=1), key="tidy")
    async for token in me.request(Say(text)).text():
        yield token
