"""The provider, in a process of its own: `provider.py LEDGER BATCH_SECONDS`. SIGUSR1 makes its time fly."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import sys
import time
from datetime import timedelta
from typing import Any

from segue.testing.simulator import Reply, Simulator, ToolCall, ToolCalls


def rule(body: dict[str, Any]) -> Reply:
    """The same words for the same body, whoever asks, and when."""
    seen = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]
    last = body["messages"][-1]
    text = str(last.get("content"))
    if "Classify" in text:
        topics = ["billing", "bug", "other"]
        return {"topic": topics[int(seen, 16) % 3], "urgent": int(seen, 16) % 2 == 0}
    if last["role"] == "user" and (found := re.match(r"Round (\d+) of (\d+)", text)):
        if (int(found[1]) + int(found[2])) % 3 == 0:
            return ToolCalls(ToolCall("look_up", {"order": seen[:4]}, id=f"call_{seen}"))
    return f"said {seen}"


class Clock:
    """The machine's time, at another speed on demand."""

    def __init__(self) -> None:
        self.speed, self._then, self._now = 1.0, time.monotonic(), time.time()

    def steady(self) -> float:
        return self.now()

    def now(self) -> float:
        moment = time.monotonic()
        self._now += (moment - self._then) * self.speed
        self._then = moment
        return self._now

    def fly(self) -> None:
        self.now()
        self.speed = 20.0

    async def sleep(self, seconds: float) -> None:
        until = self.now() + seconds
        while (left := until - self.now()) > 0:
            await asyncio.sleep(min(left / self.speed, 0.02))


async def main(ledger: str, batch_time: str) -> None:
    clock = Clock()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, clock.fly)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    took = timedelta(seconds=float(batch_time))
    live = timedelta(seconds=0.05)
    async with Simulator(rule=rule, clock=clock, batch_time=took, latency=live, ledger=ledger) as simulator:
        print(simulator.base_url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
