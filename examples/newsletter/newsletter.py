"""A newsletter by a crew of actors: one collects, one selects, writers write, an editor edits, and a person says yes.

`segue run newsletter.py:Newsletter '{"number": 1, "like": "py"}'` writes issues/1.md on packages installed here.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from importlib.metadata import distributions
from pathlib import Path

import segue
from segue import Actor, Done, state


@dataclass
class News:
    package: str
    version: str
    summary: str


@segue.step
def collect(like: str) -> list[News]:
    """What the packages that are installed here say of themselves."""
    found = {dist.name: dist for dist in distributions() if dist.name and dist.metadata["Summary"]}
    return [
        News(name, dist.version, dist.metadata["Summary"])
        for name, dist in sorted(found.items())
        if like in name.lower()
    ]


@segue.step  # done again after a crash, it writes the same
def publish(number: int, text: str) -> str:
    path = Path("issues") / f"{number}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


class Writer(Actor[str]):
    """Writes one piece."""

    news: News

    def begin(self) -> News:
        return self.news

    @state(retry=segue.Retry(3, wait=timedelta(seconds=10)))
    async def write(self, n: News) -> Done[str]:
        text = await segue.generate(f"Write one sentence of news: {n.package} {n.version}: {n.summary}")
        return Done(f"**{n.package}** {text.strip()}")


@dataclass
class Selecting: ...


@dataclass
class Writing: ...


@dataclass
class Editing:
    wish: str = ""


@dataclass
class Approval:
    text: str


class Crew(IntEnum):  # ended from the last to the first
    WRITERS = 1


class Newsletter(Actor[str]):
    groups = Crew
    number: int
    like: str = ""
    size: int = 3
    news: list[News] = segue.field(default_factory=list)
    pieces: dict[str, str] = segue.field(default_factory=dict)

    def begin(self) -> Selecting:
        return Selecting()

    @state
    async def select(self, _: Selecting) -> Writing:
        self.news = await collect(self.like)
        asked = "\n".join(["Which are worth an article? Name some.", *(n.package for n in self.news)])
        named = await segue.generate(asked)
        self.news = sorted(self.news, key=lambda n: n.package not in named)[: self.size]
        return Writing()

    @state
    async def write(self, _: Writing) -> segue.Listen:
        for n in self.news:
            writer = f"{self.me.id}/{n.package}"  # which tries again by itself, and then gives up
            await segue.spawn(Writer(n), group=Crew.WRITERS, id=writer, restart="temporary")
        return segue.Listen()

    def finished(self, child: segue.Ended) -> Editing | None:
        self.pieces[child.run.id] = child.value or ""  # one that was given up is left out
        return Editing() if len(self.pieces) == len(self.news) else None

    @state
    async def edit(self, e: Editing) -> Approval:
        pieces = "\n\n".join(piece for _, piece in sorted(self.pieces.items()) if piece)
        head = await segue.generate(f"Write a headline{e.wish and f' ({e.wish})'} for: {pieces}")
        return Approval(f"# {head.strip()}\n\n{pieces}\n")

    @state
    async def approve(self, a: Approval) -> Done[str] | Editing:
        answer = await segue.ask("Print it? If not, what is missing?", show=a.text)  # may take days
        return Done(await publish(self.number, a.text)) if answer == "yes" else Editing(answer)
