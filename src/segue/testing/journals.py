"""Old runs against today's code: exported journals, replayed offline."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..authoring.flow import target_of
from ..core import export
from ..model.chat import ChatReply
from ..model.errors import AuthorError, CallerError, ProviderFault, UnknownName
from ..ports.provider import Endpoint, Environment, Provider
from ..ports.store import Claimed
from ..providers.registry import make, resolve
from ..runtime.calls.live import CALLING
from ..runtime.proof import verify
from .fake_model import FakeEngine, FakeModel
from .fake_provider import FakeProvider


async def rerun(fn: Callable[..., Any], journals: str, /) -> None:
    """Replay exported runs of a flow or an actor, `segue export RUN > FILE`, through the code as it is now.

    Of an actor, that is the last state that it was in; what it did before is history, and its messages are gone.

    `journals` is a glob. Nothing is called; no key or network is needed. Raises `ReplayMismatch` or
    `ResultMismatch` for the first run that the code would carry out otherwise, and `UnknownName` where no
    file matches.
    """
    flow = target_of(fn)
    if flow is None:
        raise UnknownName("flow", getattr(fn, "__qualname__", repr(fn)), "decorate it with @segue.flow")
    runs = _read(journals)
    async with _Offline(FakeModel(), "memory:", worker=False) as engine:
        engine.worker.register(flow)
        for file, exported in runs.items():
            target = exported.head.spec.target
            if target != flow.name:
                raise UnknownName("flow", target, f"the run in {file} is of that flow, not of {flow.name!r}")
            try:
                head, entries = exported.head, exported.entries
                stored = Claimed(head, exported.checkpoint, None, [], [])
                await verify.replay(engine.worker, head, entries, stored=stored)
            except AuthorError as error:
                error.add_note(f"The recorded run is that of {file}.")
                raise


def _read(journals: str) -> dict[str, export.Exported]:
    files = sorted(glob.glob(journals, recursive=True))
    if not files:
        raise UnknownName("journal", journals, "write one with `segue export RUN > FILE`")
    return {file: export.read(Path(file).read_bytes().splitlines(), where=file) for file in files}


class _Offline(FakeEngine):
    """An engine that reads what any provider said, and calls none."""

    def _make(self, endpoint: Endpoint, environment: Environment) -> Provider:
        return _Reader(endpoint, self._fake)


class _Reader(FakeProvider):
    """Reads replies of fake models, and those of the real provider of that name."""

    def __init__(self, endpoint: Endpoint, fake: FakeModel) -> None:
        super().__init__(endpoint.provider, fake, fake.remote, CALLING.get)
        self._real: Provider | None
        try:
            there = resolve(f"{endpoint.provider}:{endpoint.model}", _Keys())
            self._real = make(there, _Keys(), None)  # type: ignore[arg-type]  # nothing is sent
        except CallerError:
            self._real = None

    def chat_reply(self, body: bytes) -> ChatReply:
        """A reply in the fake's form, or in the provider's."""
        try:
            return super().chat_reply(body)
        except ProviderFault:
            if self._real is None:
                raise
            return self._real.chat_reply(body)

    def embed_reply(self, body: bytes) -> tuple[list[list[float]], int]:
        """Vectors in the fake's form, or in the provider's."""
        try:
            return super().embed_reply(body)
        except ProviderFault:
            if self._real is None:
                raise
            return self._real.embed_reply(body)


class _Keys(dict[str, str]):
    """An environment that holds every key, none of which is sent anywhere."""

    def get(self, name: str, default: Any = "") -> Any:
        """A stand-in for a key; nothing for places."""
        return default if name.endswith(("_BASE_URL", "_ID")) else "offline"
