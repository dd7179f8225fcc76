"""The actor that segue is measured with."""

from dataclasses import dataclass
from enum import Enum

from common import LINE

import segue


class Tick(segue.Note): ...


class Total(segue.Request[int]): ...


class Ask(segue.Request[int]):
    n: int


class Counter(segue.Actor[None]):
    total: int = 0

    @segue.on
    async def tick(self, _: Tick) -> None:
        self.total += 1

    @segue.on
    async def ask(self, m: Ask) -> int:
        return m.n + 1

    @segue.on
    async def tell_total(self, _: Total) -> int:
        return self.total


@dataclass
class Growing:
    left: int


class Grown(segue.Actor[None]):
    steps: int
    lines: list[str] = segue.field(default_factory=list)

    def begin(self) -> Growing:
        return Growing(self.steps)

    @segue.state
    async def grow(self, at: Growing) -> Growing | segue.Listen:
        self.lines.append(LINE)
        return Growing(at.left - 1) if at.left > 1 else segue.Listen()

    @segue.on
    async def tell_total(self, _: Total) -> int:
        return len(self.lines)


# ------------------------------------------------------------------------------------------------ a tree
class Group(Enum):
    ALL = 1


@dataclass
class Opening: ...


class Up(segue.Note):
    n: int


class Size(segue.Request[int]): ...


class Leaf(segue.Actor[None]):
    above: segue.Run[None]

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        await self.above.tell(Up(1))
        return segue.Listen()


class Middle(segue.Actor[None]):
    groups = Group
    above: segue.Run[None]
    leaves: int
    up: int = 0

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        for _ in range(self.leaves):
            await segue.spawn(Leaf(self.me), group=Group.ALL)
        return segue.Listen()

    @segue.on
    async def count(self, up: Up) -> None:
        self.up += up.n
        if self.up == self.leaves:
            await self.above.tell(Up(self.up + 1))


class Top(segue.Actor[None]):
    groups = Group
    each: list[int]
    up: int = 1
    waits: segue.Responder[int] | None = None

    def begin(self) -> Opening:
        return Opening()

    @segue.state
    async def open(self, _: Opening) -> segue.Listen:
        for leaves in self.each:
            await segue.spawn(Middle(self.me, leaves), group=Group.ALL)
        return segue.Listen()

    @segue.on
    async def count(self, up: Up) -> None:
        self.up += up.n
        await self.look()

    @segue.on
    async def size(self, _: Size, reply: segue.Responder[int]) -> None:
        self.waits = reply
        await self.look()

    async def look(self) -> None:
        if self.waits is not None and self.up == 1 + len(self.each) + sum(self.each):
            await self.waits.send(self.up)
