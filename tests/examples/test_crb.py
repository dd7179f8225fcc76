"""The examples of CRB in segue: as short as there, run as they stand, and killed at every commit."""

from __future__ import annotations

import ast
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import Interrupt, Interruption
from segue.model.errors import RunInterrupted
from segue.model.run import Head
from segue.testing import FakeModel, check
from tests.authoring.killed import at_every_commit, through
from tests.runtime.lives import Desk

from .folders import Folder

crb = Folder("crb")


@pytest.fixture(autouse=True, scope="module")
def modules() -> Iterator[None]:
    with crb.known():
        yield


class Site:
    """A web server whose pages are `page of PATH`; it fails as often as it is told to."""

    def __init__(self) -> None:
        site = self
        self.paths: list[str] = []
        self.failures = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.paths.append(self.path)
                if site.failures > 0:
                    site.failures -= 1
                    self.close_connection = True  # without a word
                    return
                body = f"page of {self.path}".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def reset(self, failures: int = 0) -> None:
        self.paths.clear()
        self.failures = failures


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.server.shutdown()
    site.server.server_close()
    thread.join()


# ---------------------------------------------------------------- how long
#: Lines of each in CRB's README, as it stands there: without imports, and without what it leaves out of the code.
THERE = {
    "app": 16,
    "both": 15,
    "fallback": 16,
    "machine": 42,
    "monitor": 19,
    "page": 21,
    "pages": 19,
    "parallel": 13,
    "powers": 13,
    "routine": 12,
    "server": 34,
    "task": 12,
    "urls": 14,
}


def lines_of(source: str) -> int:
    """Lines that aren't blank, without imports."""
    lines, count = source.splitlines(), 0
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            first = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", ()))])
            count += sum(bool(line.strip()) for line in lines[first - 1 : node.end_lineno])
    return count


def test_each_is_as_short_as_there() -> None:
    here = {file.stem: lines_of(file.read_text()) for file in crb.path.glob("*.py")}
    assert here.pop("web") <= 6  # which stands for CRB's HTTP client
    assert here.keys() == THERE.keys()
    assert {name: (here[name], most) for name, most in THERE.items() if here[name] > most} == {}


# ---------------------------------------------------------------- what they do
Made = Callable[[Site], Any]
ENDING: dict[str, tuple[Made, Any]] = {
    "task": (lambda site: crb.task.Task(f"{site.url}/a"), None),
    "powers": (lambda site: crb.powers.Powers(), None),
    "page": (lambda site: crb.page.Page(f"{site.url}/a"), None),
    "pages": (lambda site: crb.pages.ConcurrentTask([f"{site.url}/{n}" for n in "abcd"]), [10] * 4),
    "machine": (lambda site: crb.machine.Machine(), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDING)
async def test_those_that_end(name: str, site: Site) -> None:
    make, expected = ENDING[name]
    done = await check(type(make(site)), [], model=FakeModel())  # the class is sound
    assert done.kills == 0

    def ended(desk: Desk, head: Head) -> None:
        assert (head.status, head.error) == ("done", None)
        assert type(make(site)).__segue__.read_result(head.value) == expected

    async def begin(engine: segue.Engine) -> None:
        await engine.start(make(site), id="it")

    assert await at_every_commit(begin, "it", ended, kind="memory", path=Path()) > 2


async def run(actor: Any) -> Any:
    async with FakeModel() as model:
        return await model.run_flow(actor)


async def test_a_task(site: Site) -> None:
    assert await run(crb.task.Task(f"{site.url}/a")) is None
    assert site.paths == ["/a"]


@pytest.mark.parametrize(
    "make", [lambda url: crb.fallback.Stubborn(url), lambda url: crb.routine.Routine(url)]
)
async def test_those_that_try_until_it_works(
    make: Callable[[str], Any], site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.reset(failures=3)
    with caplog.at_level(logging.ERROR):
        await run(make(f"{site.url}/a"))
    assert site.paths == ["/a"] * 4
    if isinstance(make(""), crb.fallback.Stubborn):
        assert [record.message[:17] for record in caplog.records] == [
            "Can't load a page"
        ] * 6  # verified, too

    def ended(desk: Desk, head: Head) -> None:
        assert (head.status, site.failures) == ("done", 0)
        assert 4 <= len(site.paths) <= 5  # one may be cut off

    async def begin(engine: segue.Engine) -> None:
        await engine.start(make(f"{site.url}/a"), id="it")

    await at_every_commit(
        begin, "it", ended, kind="memory", path=Path(), set_up=lambda desk: site.reset(failures=3)
    )


async def test_what_is_printed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    await Desk().run(crb.page.Page(f"{site.url}/a"))
    await Desk().run(crb.powers.Powers())
    assert capsys.readouterr().out == f"page of /a\n{sum(x**10 for x in range(1, 21))}\n"


class WatchedMonitor(crb.monitor.Monitor):  # type: ignore[name-defined,misc]  # loaded by name
    async def perform(self, work: segue.Work) -> Any:
        COUNTED.append((work.value.total, work.value.success))
        return await work()


COUNTED: list[tuple[int, int]] = []


async def test_a_monitor_counts_on_whatever_crashes(site: Site) -> None:
    for after in (False, True):
        for die_at in range(1, 8):
            COUNTED.clear()
            desk = Desk()
            site.reset(failures=1)
            async with desk.engine(worker=False) as engine:
                monitor = await engine.start(WatchedMonitor(f"{site.url}/a"), id="it")
            assert await through(desk, "it", die_at, after)
            before = len(COUNTED)
            async with desk.engine() as engine:
                monitor = await engine.get("it")
                await monitor.tell(Interruption(Interrupt.AFTER_HANDLER), after=timedelta(seconds=25))
                with pytest.raises(RunInterrupted):
                    await engine.result("it")
            assert 3 <= len(COUNTED) - before <= 4  # rounds that were missed count as one
            totals = [total for total, _ in COUNTED]
            assert totals == sorted(totals)
            assert set(totals) == set(range(len(set(totals))))
            assert all(success in (total, total - 1) for total, success in COUNTED)


async def test_both_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [f"{site.url}/a", f"{site.url}/b"]
    monkeypatch.setattr(crb.pages, "URLS", urls)
    assert await run(crb.both.RunBoth()) is None
    assert sorted(site.paths) == ["/a", "/b"]


async def test_parallel() -> None:
    assert await run(crb.parallel.ParallelTask()) == [n * n for n in range(1, 11)]


class Urls(segue.Request[list[str]]): ...


class OpenCrawler(crb.urls.Crawler):  # type: ignore[name-defined,misc]  # loaded by name
    @segue.on
    async def list(self, _: Urls) -> list[str]:
        urls: list[str] = self.urls
        return urls


@segue.flow
async def crb_crawl(url: str) -> list[str]:
    crawler = await segue.spawn(OpenCrawler())
    await crawler.feed([crb.urls.AddUrl(url), crb.urls.AddUrl("b"), crb.urls.DeleteUrl(url)])
    urls = await crawler.request(Urls())
    await crawler.interrupt()
    return urls


@segue.flow
async def crb_ids(times: int) -> list[int]:
    server = await segue.spawn(crb.server.Server())
    client = await segue.spawn(crb.server.Client(server))
    await client.ping()
    ids = [await server.request(crb.server.GetId()) for _ in range(times)]
    await client.interrupt()
    await server.interrupt()
    return ids


@pytest.mark.slow
async def test_messages_in_any_mode_and_any_crash() -> None:
    await check(crb_crawl, ["a"], model=FakeModel())


async def test_a_client_is_answered_by_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    async with FakeModel():
        assert sorted(await crb_ids(2)) in ([1, 2], [1, 3], [2, 3])
        assert await crb_crawl("a") == ["b"]


async def test_an_app_ends_its_groups_from_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    async def begin(engine: segue.Engine) -> None:
        app = await engine.start(crb.app.App(), id="it")
        await app.tell(Interruption(Interrupt.QUEUED), after=timedelta(minutes=1))

    async def heads(desk: Desk) -> dict[str, Head]:
        return {head.spec.target: head for head in await desk.store.runs()}

    desk = Desk()
    async with desk.engine() as engine:
        await begin(engine)
        with pytest.raises(RunInterrupted):
            await engine.result("it")
        found = await heads(desk)
    assert {head.status for head in found.values()} == {"cancelled"}
    assert capsys.readouterr().out == "Reserved id: 1\n"
    assert set(found) == {"App", "Server", "Client"}

    def ended(desk: Desk, head: Head) -> None:
        assert head.status == "cancelled"

    await at_every_commit(begin, "it", ended, kind="memory", path=Path())
    assert "Reserved id: 2" not in capsys.readouterr().out
