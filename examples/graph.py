"""A graph: fields are its state, handlers its nodes, return types its edges. A class, with nothing to build or compile.

`python graph.py` draws it. `await engine.run(Article("bees"))` runs it, and inside another run `await Article("bees")`.
"""

from dataclasses import dataclass, field

import segue
from segue import Actor, Done, state


@dataclass
class Research:
    pass


@dataclass
class Draft:
    wishes: list[str] = field(default_factory=list)


@dataclass
class Review:
    pass


@dataclass
class Approval:
    pass


@dataclass
class Verdict:
    good: bool
    wishes: list[str]


@segue.step(retry=3)
async def look_up(question: str) -> str:
    return f"{question} Nobody knows."


class Article(Actor[str]):
    topic: str
    notes: list[str] = segue.field(default_factory=list)
    text: str = ""
    rounds: int = 0

    def begin(self) -> Research:
        return Research()

    @state
    async def research(self, _: Research) -> Draft:
        """A fan-out and its join: as many branches as the model has questions."""
        questions = await segue.generate(f"Questions on {self.topic}", returns=list[str])
        self.notes = await segue.map(look_up, questions, limit=10)
        return Draft()

    @state
    async def draft(self, d: Draft) -> Review:
        self.rounds += 1
        self.text = await segue.generate(f"Write on {self.topic}: {self.notes}. Mind: {d.wishes}")
        return Review()

    @state
    async def review(self, _: Review) -> Draft | Approval:
        """A conditional edge, and a loop with a limit."""
        verdict = await segue.generate(f"Judge: {self.text}", returns=Verdict)
        if verdict.good or self.rounds == 3:
            return Approval()
        return Draft(verdict.wishes)

    @state
    async def approval(self, _: Approval) -> Done[str] | Draft:
        """A person in the middle: for days, if it takes days."""
        wish = await segue.ask("Print it? If not, what is missing?", show=self.text)
        return Done(self.text) if wish == "yes" else Draft([wish])


if __name__ == "__main__":
    print(segue.diagram(Article))
