"""The actor that segue is measured with."""

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
