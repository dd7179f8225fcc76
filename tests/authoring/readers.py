"""Actors with a past: each turn reads a page, large enough to be a content of its own."""

from __future__ import annotations

from dataclasses import dataclass

import segue


@segue.step
async def page(n: int) -> str:
    return f"{n}" * 8000


@dataclass
class Read:
    n: int


class Reader(segue.Actor[int]):
    total: int = 0

    def begin(self) -> Read:
        return Read(0)

    @segue.state
    async def read(self, r: Read) -> Read | segue.Done[int]:
        self.total += len(await page(r.n))
        return Read(r.n + 1) if r.n < 4 else segue.Done(self.total)


class Forgetful(Reader, history="drop"):
    pass
