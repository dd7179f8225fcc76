"""A model that answers after a fixed time, in a process of its own: `/chat/completions` as OpenAI speaks it.

Prints its port, then serves until standard input ends. A request with `"stream": true` is answered as eight
text chunks at the end of the wait; `GET /seen` tells how many requests came and how many asked for a stream.
"""

import asyncio
import json
import sys
import threading

from aiohttp import web

TEXT = "The order was refunded, and the customer was told so in a short and friendly letter. " * 2
USAGE = {"prompt_tokens": 30, "completion_tokens": 40, "total_tokens": 70}
CHUNKS = 8
HEAD = {"id": "chatcmpl-1", "created": 1, "model": "test"}


def whole() -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}
    return json.dumps({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def chunks() -> list[bytes]:
    size = -(-len(TEXT) // CHUNKS)
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"content": TEXT[i : i + size]} for i in range(0, len(TEXT), size)]
    bodies = [{"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    bodies.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    bodies.append({"choices": [], "usage": USAGE})
    head = {**HEAD, "object": "chat.completion.chunk"}
    lines = [f"data: {json.dumps(head | b)}\n\n".encode() for b in bodies]
    return [*lines, b"data: [DONE]\n\n"]


async def main(wait: float) -> None:
    body, stream = whole(), chunks()
    seen = {"requests": 0, "streamed": 0}

    async def complete(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        seen["requests"] += 1
        await asyncio.sleep(wait)
        if not asked.get("stream"):
            return web.Response(body=body, content_type="application/json")
        seen["streamed"] += 1
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in stream:
            await response.write(chunk)
        return response

    async def tell(_: web.Request) -> web.Response:
        return web.json_response(seen)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/seen", tell)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)

    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def until_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=until_end, daemon=True).start()
    await over.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
