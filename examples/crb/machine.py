from dataclasses import dataclass
from enum import Enum

from segue import Actor, Done, state


@dataclass
class First: ...


@dataclass
class Second: ...


@dataclass
class Third: ...


class Stage(Enum):
    FIRST = "first"
    SECOND = "second"
    THIRD = "third"

    def next(self) -> First | Second | Third:
        return {Stage.FIRST: First, Stage.SECOND: Second, Stage.THIRD: Third}[self]()


class Machine(Actor[None]):
    stage: Stage = Stage.FIRST

    def begin(self) -> First | Second | Third:
        return self.stage.next()

    @state
    async def first(self, _: First) -> First | Second | Third:
        self.stage = Stage.SECOND
        return self.stage.next()

    @state
    async def second(self, _: Second) -> First | Second | Third:
        self.stage = Stage.THIRD
        return self.stage.next()

    @state
    async def third(self, _: Third) -> Done[None]:
        return Done()
