"""No secret reaches a journal, an event, a log or an error, whatever a provider says about it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import traceback
import urllib.parse
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import segue
from segue.model.errors import InvalidValue, SegueError
from segue.testing.simulator import Failure, Simulator

KEYS = ["sk-proj-Zq7xK2mN9pL4vB8c", "hunter2/with+signs=and.more"]


@segue.flow(name="secrets.say")
async def say(text: str) -> str:
    return await segue.generate(text)


@segue.flow(name="secrets.embed")
async def embed(text: str) -> int:
    return len(await segue.embed([text]))


class Parrot:
    """A server that repeats, with every answer, the key it was given."""

    def __init__(self) -> None:
        self.answer: Callable[[str], web.Response] = lambda key: web.Response()
        self.url = ""
        self.asked = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._any)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _any(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked += 1
        return self.answer(request.headers["Authorization"])

    async def close(self) -> None:
        await self._runner.cleanup()


def coded(status: int) -> Callable[[str], web.Response]:
    def answer(key: str) -> web.Response:
        bare = key.removeprefix("Bearer ")
        error = {"message": f"Incorrect API key provided: {bare}", "code": f"bad {bare}", "type": key}
        return web.json_response({"error": error}, status=status)

    return answer


ANSWERS: dict[str, Callable[[str], web.Response]] = {
    "401": coded(401),
    "400": coded(400),
    "500 without retry": lambda key: web.json_response(
        {"error": {"message": key}}, status=500, headers={"x-should-retry": "false", "x-key": key}
    ),
    "error under 200": lambda key: web.json_response(
        {"error": {"message": f"key {key}", "code": "invalid_api_key"}}
    ),
    "plain": lambda key: web.Response(status=403, text=f"{key} may not"),
    "html": lambda key: web.Response(status=404, text=f"<b>{key}</b>", content_type="text/html"),
    "moved": lambda key: web.Response(status=308, headers={"Location": f"/login?key={key}"}),
    "stream": lambda key: web.Response(
        text=f'data: {{"error": {{"message": "no {key}", "code": "invalid_api_key"}}}}\n\n',
        content_type="text/event-stream",
    ),
    "encoded": lambda key: web.Response(status=401, text=urllib.parse.quote(key.partition(" ")[2], "")),
}


@pytest.fixture
async def parrot() -> AsyncIterator[Parrot]:
    parrot = Parrot()
    await parrot.start()
    yield parrot
    await parrot.close()


@pytest.fixture(params=KEYS, ids=["sk", "other"])
def key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", request.param)
    return str(request.param)


class Ears:
    """All that can be heard of an engine: files, events, logs, errors."""

    def __init__(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.path, self._caplog = path, caplog
        self.heard: list[str] = []
        caplog.set_level(logging.DEBUG)

    def error(self, error: BaseException) -> None:
        self.heard += traceback.format_exception(error)
        self.heard.append(repr(error) + repr(vars(error)))

    async def listen(self, run: segue.Run[Any]) -> None:
        async for event in run:
            self.heard.append(repr(event))

    def secretless(self, key: str) -> None:
        files = [file for file in self.path.rglob("*") if file.is_file()]
        assert files
        forms = [key, urllib.parse.quote(key, ""), base64.b64encode(key.encode()).decode()]
        for form in forms:
            for file in files:
                assert form.encode() not in file.read_bytes(), f"the key is in {file.name}"
            for record in self._caplog.records:
                assert form not in logging.Formatter().format(record), f"the key is in a log of {record.name}"
            for text in self.heard:
                assert form not in text, "the key is in an event or an error"


@pytest.fixture
def ears(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Ears:
    return Ears(tmp_path, caplog)


@pytest.mark.parametrize("mode", ["live", "batch"])
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("flow", [say, embed], ids=["chat", "embed"])
async def test_failures(parrot: Parrot, ears: Ears, key: str, flow: Any, answer: str, mode: Any) -> None:
    if mode == "batch" and answer == "stream":
        pytest.skip("a job isn't streamed")
    parrot.answer = ANSWERS[answer]
    model = f"openai:m@{parrot.url}#OPENAI_API_KEY"
    async with segue.Engine(f"sqlite:{ears.path / 'runs.db'}", mode=mode, model=model) as engine:
        run = await engine.start(flow("hi"))
        listening = asyncio.ensure_future(ears.listen(run))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                with pytest.raises(SegueError) as caught:
                    await run
                ears.error(caught.value)
                ears.heard.append(repr(await run.head()))
                await listening
        listening.cancel()
        ears.heard.append(repr(await engine.store.batch_jobs(open_only=False)))
        ears.secretless(key)
        assert parrot.asked
    ears.secretless(key)


@pytest.mark.parametrize("mode", ["live", "batch"])
async def test_success_and_single_failures(ears: Ears, key: str, mode: Any) -> None:
    def rule(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        return Failure(400, f"I don't like {key}", code=f"x-{key}") if "bad" in text else "good"

    async with Simulator(rule=rule, key=key, batch_time=timedelta(seconds=0.05)) as sim:
        model = f"openai:m@{sim.base_url}#OPENAI_API_KEY"
        async with segue.Engine(f"sqlite:{ears.path / 'runs.db'}", mode=mode, model=model) as engine:
            async for outcome in engine.map(say, ["one", "bad", "two"]):
                if outcome.error is None:
                    assert outcome.value == "good"
                else:
                    assert outcome.input == "bad"
                    ears.error(outcome.error)
            assert ears.heard
            ears.secretless(key)
            ears.heard.append(repr(engine.models._providers))
    ears.secretless(key)


class Refusal(Exception):
    """Of a client that the author's code calls by itself."""

    def __init__(self, url: str, *, told: dict[str, str]) -> None:
        self.url, self.told = url, told
        super().__init__(f"401 for {url}")


@segue.step(name="secrets.asks_by_itself")
async def asks_by_itself(how: str) -> None:
    key = os.environ["OPENAI_API_KEY"]
    shown = urllib.parse.quote(key, "") if how == "quoted" else key
    problem = Refusal(f"http://127.0.0.1/?key={shown}", told={"key": key})
    if how == "group":
        raise ExceptionGroup("several", [problem])
    raise problem


@segue.flow(name="secrets.by_itself")
async def by_itself(how: str) -> str:
    try:
        await asks_by_itself(how)
    except* Refusal as refusals:
        found = refusals.exceptions[0]
    await segue.sleep(timedelta(milliseconds=1))  # and once more from the journal
    raise found


@pytest.mark.parametrize("how", ["alone", "group", "quoted"])
async def test_what_an_authors_own_client_raises(ears: Ears, key: str, how: str) -> None:
    address = f"sqlite:{ears.path / 'runs.db'}"
    async with segue.Engine(address, verify=True, park="always") as engine:
        run = await engine.start(by_itself(how))
        await ears.listen(run)
        with pytest.raises(Refusal, match=r"^401 for http://127\.0\.0\.1/\?key=\*\*\*") as caught:
            await run
        assert caught.value.told == {"key": "***"}
        ears.heard += [repr(caught.value), repr(await run.head()), *caught.value.__notes__]
        ears.secretless(key)
        assert urllib.parse.quote(key, "") not in "".join(ears.heard)


@pytest.mark.parametrize("place", ["http://user:{}@127.0.0.1:1/v1", "http://127.0.0.1:1/v1?api_key={}"])
async def test_a_key_in_the_name_of_a_model(ears: Ears, key: str, place: str) -> None:
    model = f"openai:m@{place.format(urllib.parse.quote(key, ''))}"
    async with segue.Engine(f"sqlite:{ears.path / 'runs.db'}") as engine:
        for begin in (
            lambda: engine.run(say("hi"), model=model),
            lambda: engine.run(say("hi"), models={"judge": ["openai:m", model]}),
        ):
            with pytest.raises(InvalidValue, match="behind a #, name the variable that holds it") as caught:
                await begin()
            ears.error(caught.value)
        assert not await engine.store.runs(limit=9)
    ears.secretless(key)


PASSWORD = "Pa55w0rd+of%2Fnobodys"


class Unavailable(Exception):
    """Of a client that the author's code calls by itself; it can't be made anew from its record."""

    def __init__(self, url: str, client: object) -> None:
        super().__init__(f"503 for url '{url}'")


@segue.step(name="secrets.reaches")
async def reaches(url: str, plain: bool) -> None:
    url = url.replace("…", PASSWORD)
    raise RuntimeError(f"no answer of {url}") if plain else Unavailable(url, object())


@segue.flow(name="secrets.reaching")
async def reaching(url: str, plain: bool) -> None:
    await reaches(url, plain)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ada:…@127.0.0.1/x", "https://***@127.0.0.1/x"),
        ("postgres://ada:…@127.0.0.1:5432/x", "postgres://ada:***@127.0.0.1:5432/x"),
        ("https://127.0.0.1/x?page=2&key=…&v=1", "https://127.0.0.1/x?page=2&key=***&v=1"),
        ("https://127.0.0.1/x?X-Amz-Signature=…", "https://127.0.0.1/x?X-Amz-Signature=***"),
        ("https://127.0.0.1/x?access_token=…", "https://127.0.0.1/x?access_token=***"),
    ],
)
async def test_what_the_url_in_an_authors_own_error_holds(
    ears: Ears, monkeypatch: pytest.MonkeyPatch, url: str, shown: str, plain: bool
) -> None:
    monkeypatch.setattr(logging.getLogger("segue.raised"), "propagate", True)
    async with segue.Engine(f"sqlite:{ears.path / 'runs.db'}") as engine:
        run = await engine.start(reaching(url, plain))
        await ears.listen(run)
        with pytest.raises(RuntimeError if plain else SegueError, match=r"(no answer of|503 for)") as caught:
            await run
        assert shown in str(caught.value)
        ears.error(caught.value)
        ears.secretless(PASSWORD)
    ears.secretless(PASSWORD)


async def test_what_a_url_tells_that_is_no_secret(ears: Ears) -> None:
    url = "https://127.0.0.1/x?author=ada&page_token=7&sort_key=n#key=8"
    async with segue.Engine(f"sqlite:{ears.path / 'runs.db'}") as engine:
        with pytest.raises(RuntimeError) as caught:
            await engine.run(reaching(url, True))
    assert str(caught.value) == f"no answer of {url}"


@segue.flow(name="secrets.named")
async def named() -> str:
    return await segue.generate("hi", model="openai:m@http://ada:Pa55w0rd+of%2Fnobodys@127.0.0.1:1/v1")


async def test_a_password_in_a_line_of_the_authors_code(ears: Ears) -> None:
    async with segue.Engine(f"sqlite:{ears.path / 'runs.db'}") as engine:
        with pytest.raises(InvalidValue, match="it has a password") as caught:
            await engine.run(named())
        ears.heard += caught.value.__notes__
        assert "await segue.generate(" in caught.value.__notes__[0]
        ears.secretless(PASSWORD)
    ears.secretless(PASSWORD)


def told(how: str) -> RuntimeError:
    return RuntimeError(how.replace("PASSWORD", PASSWORD).replace("KEY", os.environ["OPENAI_API_KEY"]))


class Do(segue.Note):
    how: str


class ToldAtOnce(segue.Envelope):
    urgent = True
    how: str

    async def carry_out(self, actor: Any, turn: segue.Turn, /) -> object:
        raise told(self.how)


class Clumsy(segue.Actor[None]):
    """All of its own that fails tells where it was sent."""

    @segue.on
    async def do(self, note: Do) -> None:
        raise told(note.how)

    def interrupted(self) -> Any:
        raise told("KEY https://ada:PASSWORD@127.0.0.1/x")


async def test_what_an_actors_own_errors_hold(ears: Ears, key: str) -> None:
    async with segue.Engine(f"sqlite:{ears.path / 'runs.db'}") as engine:
        run = await engine.start(Clumsy(), id="clumsy")
        for how in ("https://ada:PASSWORD@127.0.0.1/x", "it was KEY"):
            await run.tell(Do(how))
            await run.tell(ToldAtOnce(how))
        while len(await engine.dead_letters()) < 4:
            await asyncio.sleep(0.01)
        await run.tell(segue.Interruption(segue.Interrupt.AFTER_HANDLER))
        with contextlib.suppress(SegueError):
            await run
        said = [letter.error.message for letter in await engine.dead_letters() if letter.error is not None]
        assert sorted(said) == ["https://***@127.0.0.1/x"] * 2 + ["it was ***"] * 2
        ears.secretless(PASSWORD)
    ears.secretless(key)
    ears.secretless(PASSWORD)
