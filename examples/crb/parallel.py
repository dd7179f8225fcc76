import segue
from segue import Actor, Done, state


@segue.step(pool="process")
def square(n: int) -> int:  # each on a core of its own
    return n * n


class ParallelTask(Actor[list[int]]):
    def begin(self) -> int:
        return 10

    @state
    async def squares(self, last: int) -> Done[list[int]]:
        return Done(await segue.map(square, range(1, last + 1)))
