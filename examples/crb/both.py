import asyncio
from dataclasses import dataclass

from pages import ConcurrentTask
from parallel import ParallelTask

from segue import Actor, Done, state


@dataclass
class Both: ...


class RunBoth(Actor[None]):
    def begin(self) -> Both:
        return Both()

    @state
    async def run(self, _: Both) -> Done[None]:
        await asyncio.gather(ConcurrentTask(), ParallelTask())
        return Done()
