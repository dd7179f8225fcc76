"""What is lost where an instance of a subclass is passed as its base is told where runs are verified; no more is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest

import segue
from segue.runtime.proof import losses
from segue.testing import FakeModel


@dataclass
class Label:
    topic: str


@dataclass
class Rated(Label):
    stars: int = 5


class Ask(segue.Request[Label]):
    label: Label


class Loose(pydantic.BaseModel):
    topic: str


class Strict(Loose):
    stars: int = 5


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    losses._TOLD.clear()
    yield
    losses._TOLD.clear()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage().partition("): ")[2].partition(" isn't kept")[0]
        for record in caplog.records
        if "isn't kept" in record.getMessage()
    ]


@segue.step
async def rated() -> Label:
    return Rated("a")


@segue.step
async def many() -> dict[str, list[Loose]]:
    return {"x": [Loose(topic="a"), Strict(topic="b")]}


@segue.flow
async def takes(label: Label, *, others: list[Label]) -> Label:
    return label


@segue.flow
async def steps() -> str:
    await many()
    return (await rated()).topic


@segue.flow
async def gives() -> Label:
    return Rated("a")


@segue.step
async def rated_any() -> Any:
    return Rated("a")


@segue.flow
async def anything() -> Any:
    return await rated_any()


class Keeper(segue.Actor[Label]):
    label: Label = field(default_factory=lambda: Label("none"))

    @segue.on
    async def ask(self, m: Ask) -> Label:
        await rated_any()
        self.label = Rated("c") if m.label.topic == "b" else m.label
        return m.label


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: takes(Rated("a"), others=[]), ["[0][0].stars of its arguments"]),
        (lambda: takes(Label("a"), others=[Label("b"), Rated("c")]), ["[1].others[1].stars of its arguments"]),
        (steps, [".x[1].stars of what 'many' gave", ".stars of what 'rated' gave"]),
        (gives, [".stars of its result"]),
        (lambda: takes(Label("a"), others=[]), []),
        (anything, []),
    ],
)  # fmt: skip
async def test_what_a_flow_loses_is_told_once(
    make: Any, what: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeModel() as model:
        for _ in range(2):
            await model.run_flow(make())
    assert told(caplog) == what
    if what:
        assert "Annotate the class that is passed" in caplog.text


async def test_fields_and_messages_of_an_actor(caplog: pytest.LogCaptureFixture) -> None:
    async with segue.Engine(verify=True) as engine:
        keeper = await engine.start(Keeper(), id="k")
        await keeper.request(Ask(Rated("a")))
        assert await keeper.request(Ask(Label("b"))) == Label("b")
    assert told(caplog) == [".label.stars of the message Ask", ".label.stars of its fields"]


async def test_without_verifying_nothing_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    async with segue.Engine() as engine:
        assert await engine.run(takes(Rated("a"), others=[])) == Label("a")
    assert told(caplog) == []


class Optional(msgspec.Struct, omit_defaults=True):
    a: int = 1
    b: list[int] = []


@dataclass
class Derived:
    a: int
    twice: int = field(init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.a


@pytest.mark.parametrize(
    ("data", "tp"),
    [
        (b"{}", Optional),
        (b'{"a":1,"twice":2}', Derived),
        (b"1", float),
        (b'[{"topic":"a"}]', list[Label]),
        (b"[2,1]", set[int]),
        (b'{"topic":1}', Label),  # it can't be read, which is told elsewhere
    ],
)
def test_other_forms_arent_losses(data: bytes, tp: Any) -> None:
    found = losses.Losses("x")
    found.look("it", data, lambda text: msgspec.json.decode(text, type=tp))
    assert not found.found


@segue.step
async def in_berlin(at: datetime) -> datetime:
    return at.astimezone(ZoneInfo("Europe/Berlin"))


@segue.flow
async def half_a_year_later(at: datetime) -> datetime:
    told = await in_berlin(at)
    assert told.tzinfo == at.tzinfo == timezone(timedelta(hours=1))  # the first time too
    return told + timedelta(days=180)


async def test_of_a_time_zone_its_offset_is_kept_in_every_life(caplog: pytest.LogCaptureFixture) -> None:
    noon = datetime(2026, 1, 5, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    async with segue.Engine("memory:", verify=True) as engine:
        later = await engine.run(half_a_year_later(noon))
    assert later == noon.astimezone(UTC) + timedelta(days=180) != noon + timedelta(days=180)
    assert not caplog.records
