"""A flow that its workers die of, and one that they don't."""

import os
import signal
from pathlib import Path

import segue


@segue.step
async def take_down(cured: str) -> str:
    if not Path(cured).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "cured"


@segue.flow
async def poisonous(cured: str) -> str:
    return await take_down(cured)


@segue.flow
async def harmless(n: int) -> int:
    return n
