"""A newsletter by a crew of actors: one collects, one selects, writers write, an editor edits, and a person says yes.

`segue run newsletter.py:Newsletter '{"number": 1, "like": "python"}'` writes issues/1.md: what is new in the packages
of this machine, as their changelogs tell.
"""

import asyncio
import gzip
import re
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from itertools import takewhile
from pathlib import Path

import segue
from segue import Actor, Done, fallback, state
from segue.errors import BadAnswer


@dataclass
class News:
    package: str
    version: str
    changes: str


@segue.step
def collect(like: str, docs: str) -> list[News]:
    """The newest entry of each changelog, as Debian and its kin keep them."""
    news: dict[str, News] = {}
    for path in sorted(Path(docs).glob(f"*{like}*/changelog*.gz")):
        with gzip.open(path, "rt", errors="replace") as file:
            entry = "".join(takewhile(lambda line: not line.startswith(" -- "), file))
        if head := re.match(r"(\S+) \((\S+)\) .*\n", entry):
            changes = " ".join(entry[head.end() :].split())
            news.setdefault(head[1], News(head[1], head[2], changes[:500]))
    if not news:
        raise LookupError(f"no package in {docs} has {like!r} in its name and a changelog")
    return list(news.values())


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


class Collector(Actor[list[News]]):
    docs: str
    like: str

    def begin(self) -> str:
        return self.like

    @state
    async def collect(self, like: str) -> Done[list[News]]:
        return Done(await collect(like, self.docs))


@dataclass
class Offer:
    news: list[News]
    size: int


@dataclass
class Choice:
    packages: list[str]


class Selector(Actor[list[News]]):
    offer: Offer

    def begin(self) -> Offer:
        return self.offer

    @state
    async def select(self, o: Offer) -> Done[list[News]]:
        asked = "\n".join(["Which are worth an article? Name some.", *(n.package for n in o.news)])
        choice = await segue.generate(asked, returns=Choice)
        return Done(sorted(o.news, key=lambda n: n.package not in choice.packages)[: o.size])

    @fallback
    async def select_any(self, o: Offer, error: BadAnswer) -> Done[list[News]]:
        return Done(o.news[: o.size])  # asked again and again, the model can't choose


class Writer(Actor[str]):
    news: News

    def begin(self) -> News:
        return self.news

    @state(retry=segue.Retry(3, wait=timedelta(seconds=10)))
    async def write(self, n: News) -> Done[str]:
        asked = f"Write one sentence of news: {n.package} {n.version}: {n.changes}"
        return Done(f"**{n.package}** {first(await segue.generate(asked, returns=segue.Reply[str]))}")


@dataclass
class Draft:
    pieces: list[str]
    wish: str


class Editor(Actor[str]):
    draft: Draft

    def begin(self) -> Draft:
        return self.draft

    @state
    async def edit(self, d: Draft) -> Done[str]:
        pieces = "\n\n".join(d.pieces)
        asked = f"Write a headline{d.wish and f' ({d.wish})'} for: {pieces}"
        head = first(await segue.generate(asked, returns=segue.Reply[str]))
        return Done(f"# {head.replace('*', '').lstrip('# ')}\n\n{pieces}\n")


@dataclass
class Writing: ...


@dataclass
class Editing:
    wish: str = ""


@dataclass
class Approval:
    text: str


class Crew(IntEnum):  # ended from the last to the first
    DESK = 1
    WRITERS = 2


class Newsletter(Actor[str]):
    groups = Crew
    restart = segue.Restart("one", times=3, within=timedelta(hours=1))  # of the selector and the editor
    number: int
    like: str = ""
    size: int = 3
    docs: str = "/usr/share/doc"
    pieces: list[str] = segue.field(default_factory=list)

    def begin(self) -> Writing:
        return Writing()

    @state
    async def write(self, _: Writing) -> Editing:
        collector = await segue.spawn(Collector(self.docs, self.like), group=Crew.DESK, restart="temporary")
        selector = await segue.spawn(Selector(Offer(await collector, self.size)), group=Crew.DESK)
        writers = [
            await segue.spawn(Writer(n), group=Crew.WRITERS, restart="temporary") for n in await selector
        ]
        pieces = await asyncio.gather(*writers, return_exceptions=True)
        self.pieces = [piece for piece in pieces if isinstance(piece, str)]  # who gave up is left out
        return Editing()

    @state
    async def edit(self, e: Editing) -> Approval:
        editor = await segue.spawn(Editor(Draft(self.pieces, e.wish)), group=Crew.DESK)
        return Approval(await editor)

    @state
    async def approve(self, a: Approval) -> Done[str] | Editing:
        answer = await segue.ask("Print it? If not, what is missing?", show=a.text)  # may take days
        return Done(await publish(self.number, a.text)) if answer == "yes" else Editing(answer)
