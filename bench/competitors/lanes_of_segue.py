"""A provider whose job files lie on disk, and lines that wait for it."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from common import ASKED, answer_line

from segue.model.chat import ChatReply
from segue.model.lane import Line
from segue.model.run import CallRef, Spec
from segue.ports.provider import Endpoint, LineResult, RemoteJob
from segue.ports.store import NewRun, Turn
from segue.providers import batches, completions
from segue.providers.masking import Mask
from segue.runtime.calls.naming import lane_key, line_id

LANE = lane_key(Endpoint("far", "", "m"), "chat")
SOME = 1000


class Far:
    """OpenAI's files without the network. `spent`: seconds that the provider's own work took."""

    name, batches, at_once = "far", True, 1
    max_lines, max_bytes = 50_000, 190_000_000

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs, self.spent = folder, 0, 0.0
        self.mask = Mask("")

    def chat_reply(self, body: bytes) -> ChatReply:
        return completions.chat_reply(body)

    async def upload(self, lines: AsyncIterator[tuple[str, bytes]], endpoint: str, nonce: str) -> str:
        file = self.folder / f"in-{self.jobs}.jsonl"
        self.idents: list[str] = []
        with file.open("wb") as to:
            async for ident, body in lines:
                to.write(batches.job_line(ident, "/v1/chat/completions", body))
                self.idents.append(ident)
        return str(file)

    async def submit(self, file: str, endpoint: str, nonce: str, lines: Any = None) -> RemoteJob:
        began = time.perf_counter()
        answers = self.folder / f"out-{self.jobs}.jsonl"
        with answers.open("wb") as to:
            to.writelines(map(answer_line, reversed(self.idents)))
        Path(file).unlink()
        self.jobs += 1
        self.spent += time.perf_counter() - began
        return self._job(str(answers))

    def _job(self, ident: str) -> RemoteJob:
        return RemoteJob(ident, "completed", True, files=(ident,))

    async def find(self, *args: Any, **known: Any) -> RemoteJob | None:
        return None

    async def poll(self, job: str) -> RemoteJob:
        return self._job(job)

    async def results(self, job: RemoteJob) -> AsyncIterator[LineResult | str]:
        with open(job.id, "rb") as answers:
            for line in answers:
                yield batches.line_result(line, self.mask)
        Path(job.id).unlink()

    async def close(self) -> None:
        pass


async def fill(store: Any, n: int) -> None:
    """Parked runs, each with a line that waits."""
    body = ASKED.encode()
    for start in range(0, n, SOME):
        ids = [f"job/{i}" for i in range(start, min(n, start + SOME))]
        await store.create(
            [NewRun(id, Spec("flow", "lane", b"[]")) for id in ids], now=1.0, worker="w", ttl=1e9
        )
        turns = [
            Turn(
                run=id,
                fence=1,
                status="parked",
                release=True,
                lines=[Line(line_id(id, ("", 0)), LANE, CallRef(id, "", 0), body, len(body), 1.0)],
            )
            for id in ids
        ]
        await store.commit(turns)
