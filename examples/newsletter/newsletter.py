"""A newsletter by a crew of actors: one collects, one selects, writers write, an editor edits, and a person says yes.

`segue run newsletter.py:Newsletter '{"number": 1, "like": "py"}'` writes issues/1.md on packages installed here.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from importlib.metadata import distributions
from pathlib import Path

import segue
from segue import Actor, Done, fallback, state
from segue.errors import BadAnswer


@dataclass
class News:
    package: str
    version: str
    summary: str


@segue.step
def collect(like: str) -> list[News]:
    """What the packages that are installed here say of themselves."""
    found = {dist.name: dist for dist in distributions() if dist.name and dist.metadata["Summary"]}
    news = [
        News(name, dist.version, dist.metadata["Summary"])
        for name, dist in sorted(found.items())
        if like in name.lower()
    ]
    if not news:
        raise LookupError(f"no package here has {like!r} in its name")
    return news


@segue.step  # done again after a crash, it writes the same
def publish(number: int, text: str) -> str:
    path = Path("issues") / f"{number}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def first(reply: segue.Reply[str]) -> str:
    """The first line, up to its last whole sentence: a small model goes on and on until it is cut off."""
    line = reply.text.strip().partition("\n")[0]
    return line[: line.rfind(". ") + 1] or line


class Writer(Actor[str]):
    """Writes one piece."""

    news: News

    def begin(self) -> News:
        return self.news

    @state(retry=segue.Retry(3, wait=timedelta(seconds=10)))
    async def write(self, n: News) -> Done[str]:
        asked = f"Write one sentence of news: {n.package} {n.version}: {n.summary}"
        return Done(f"**{n.package}** {first(await segue.generate(asked, returns=segue.Reply[str]))}")


@dataclass
class Selecting: ...


@dataclass
class Choice:
    packages: list[str]


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
        choice = await segue.generate(asked, returns=Choice)
        self.news = sorted(self.news, key=lambda n: n.package not in choice.packages)[: self.size]
        return Writing()

    @fallback
    async def select_any(
        self, _: Selecting, error: BadAnswer
    ) -> Writing:  # asked again and again, it can't choose
        self.news = (await collect(self.like))[: self.size]
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
        asked = f"Write a headline{e.wish and f' ({e.wish})'} for: {pieces}"
        head = first(await segue.generate(asked, returns=segue.Reply[str]))
        return Approval(f"# {head.replace('*', '').lstrip('# ')}\n\n{pieces}\n")

    @state
    async def approve(self, a: Approval) -> Done[str] | Editing:
        answer = await segue.ask("Print it? If not, what is missing?", show=a.text)  # may take days
        return Done(await publish(self.number, a.text)) if answer == "yes" else Editing(answer)
