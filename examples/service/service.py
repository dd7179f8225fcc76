"""A web service with an actor for each request: POST /ask?id=… gives Server-Sent Events. `python service.py`."""

import os
from collections.abc import AsyncIterator
from uuid import uuid4

from aiohttp import web

import segue


class Question(segue.Actor[str]):
    text: str

    def begin(self) -> str:
        return self.text

    @segue.state
    async def answer(self, text: str) -> segue.Done[str]:
        return segue.Done(await segue.generate(text))


ENGINE = web.AppKey("engine", segue.Engine)


async def ask(request: web.Request) -> web.StreamResponse:
    """Tokens as they come, then the whole. The same `id` again gives the same answer, paid for once."""
    id = request.query.get("id") or uuid4().hex
    run = await request.app[ENGINE].start(Question(await request.text()), id=f"question/{id}")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Question": id})
    await response.prepare(request)
    async for token in run.text():
        await send(response, "token", token)
    await send(response, "done", await run)
    return response


async def send(response: web.StreamResponse, event: str, text: str) -> None:
    data = "".join(f"data: {line}\n" for line in text.split("\n"))
    await response.write(f"event: {event}\n{data}\n".encode())


async def engine(app: web.Application) -> AsyncIterator[None]:
    model = os.environ.get("MODEL", "openai:gpt-5-mini")
    async with segue.Engine("sqlite:service.db", model=model) as app[ENGINE]:
        yield


def make() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(engine)
    app.router.add_post("/ask", ask)
    return app


if __name__ == "__main__":
    web.run_app(make(), host="127.0.0.1", port=8080)
