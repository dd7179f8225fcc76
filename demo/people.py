"""Stands in for the people who are asked: answers each open question after a while, by a rule."""

import asyncio
import contextlib
import sys

import segue


async def main(store: str, patience: float) -> None:
    async with segue.Engine(store, worker=False) as engine:
        async for ask in engine.asks():
            await asyncio.sleep(patience)
            _, answer = ask.show
            try:
                await ask.answer(rule(answer))
            except segue.SegueError:
                continue  # somebody was quicker


def rule(answer: str) -> bool:
    """Whether an answer may be sent: not one in which nobody did anything, of which the model is fond."""
    return "nobody" not in answer


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], float(sys.argv[2])))
