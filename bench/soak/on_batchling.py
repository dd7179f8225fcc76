"""The conversations in batchling: `on_batchling.py URL RUNS JOB FOLDER`.

It knows providers by their host name and speaks HTTPS to them, so its own client is given a transport that sends what
is meant for api.openai.com to the simulator. It takes part in calls of `httpx` and `aiohttp`: the newest OpenAI SDK
that is built on httpx is used, with its retries. Its cache is on: the same request, asked again, waits for its job.
"""

import asyncio
import importlib.metadata
import os
import sys

from talk import TURNS, Told, first


async def main(url: str, runs: int, job: int, folder: str) -> None:
    os.environ["BATCHLING_CACHE_PATH"] = f"{folder}/cache.sqlite3"
    import httpx
    from batchling import batchify
    from openai import AsyncOpenAI

    class Simulated(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            there = httpx.URL(url)
            request.url = request.url.copy_with(scheme="http", host=there.host, port=there.port)
            return await super().handle_async_request(request)

    told = Told(folder)
    client = AsyncOpenAI(base_url="https://api.openai.com/v1", api_key="any", max_retries=3)

    async def talk(number: int) -> None:
        said = first(number)
        try:
            for _ in range(TURNS):
                asked = [{"role": "user", "content": said}]
                reply = await client.chat.completions.create(model="gpt-4o-mini", messages=asked)
                said = reply.choices[0].message.content
        except Exception as error:
            told.end(number, None, error)
        else:
            told.end(number, said)

    context = batchify(
        batch_size=job, batch_window_seconds=0.5, batch_poll_interval_seconds=0.25, live_display=False
    )
    context._self_batcher._client_factory = lambda: httpx.AsyncClient(timeout=30.0, transport=Simulated())
    async with context:
        await asyncio.gather(*(talk(number) for number in range(runs)))


if __name__ == "__main__":
    if sys.argv[1:] == ["versions"]:
        print(*(f"{name} {importlib.metadata.version(name)}" for name in ("batchling", "openai")), sep=", ")
    else:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
