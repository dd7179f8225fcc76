"""The conversations in segue: `on_segue.py URL RUNS JOB FOLDER`."""

import asyncio
import importlib.metadata
import sys
from datetime import timedelta

from talk import TURNS, Told, first

import segue
from segue.model.mode import Batch


@segue.flow(name="soak.talk")
async def talk(number: int) -> str:
    said = first(number)
    for _ in range(TURNS):
        said = await segue.generate(said)
    return said


async def main(url: str, runs: int, job: int, folder: str) -> None:
    told = Told(folder)
    mode = Batch(max_lines=job, max_age=timedelta(seconds=1))
    model = f"openai:gpt-5-mini@{url}"
    async with segue.Engine(f"sqlite:{folder}/runs.db", model=model, mode=mode) as engine:
        async for outcome in engine.map(talk, range(runs), id="soak"):
            told.end(outcome.index, outcome.value, outcome.error)


if __name__ == "__main__":
    if sys.argv[1:] == ["versions"]:
        print(f"segue {importlib.metadata.version('segue')}")
    else:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
