"""A process that spends: `spender.py STORE JOB ROWS MODE LEDGER TOKENS`. What the provider is paid is in the ledger.

Each call may cost at most what is reserved for it, for its output is bounded.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import Any

import segue
from segue.errors import RunHeld
from tests.crash.remote import Far, FastClock, Remote, answer


@segue.flow(name="spender.ask")
async def ask(number: int) -> str:
    first = await segue.generate(f"row {number}", max_tokens=2)
    return await segue.generate(f"then {first}", max_tokens=2)


class Paid(Far):
    """A provider that writes down what it is paid, as soon as it is."""

    def __init__(self, ledger: str) -> None:
        super().__init__(Remote(FastClock()))
        self.ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def chat_body(self, request: Any, model: str) -> dict[str, Any]:
        return super().chat_body(request, model)

    async def send(self, endpoint: str, body: bytes, on_text: Any, on_rates: Any = None) -> bytes:
        await asyncio.sleep(random.uniform(0.0, 0.004))
        os.write(self.ledger, b"5\n")
        await asyncio.sleep(random.uniform(0.0, 0.004))
        return answer(body)


async def main(store: str, job: str, rows: int, mode: Any, ledger: str, tokens: int) -> None:
    provider = Paid(ledger)
    async with segue.Engine(
        store,
        mode=mode,
        model="far:m",
        providers={"far": lambda _: provider},
        budget=segue.Budget(tokens=tokens),
        grace=10.0,  # calls for the other process's job may be under way when this one's is done
    ) as engine:
        async for outcome in engine.map(ask, range(rows), id=job):
            assert outcome.ok or isinstance(outcome.error, RunHeld), outcome.error


if __name__ == "__main__":
    address, name, count, how, path, limit = sys.argv[1:]
    asyncio.run(main(address, name, int(count), how, path, int(limit)))
