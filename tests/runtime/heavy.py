"""Work for other processes, in a module that they can import."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec

import segue


class Point(msgspec.Struct):
    x: int
    y: int


class Odd(Exception):
    def __init__(self, n: int) -> None:
        self.n = n
        super().__init__(f"{n} is odd")


class Unbuildable(Exception):
    def __init__(self, a: object, b: object) -> None:
        super().__init__("no way back")


@segue.step(pool="process")
def squares(n: int) -> list[int]:
    return [i * i for i in range(n)]


@segue.step(pool="process")
def mirror(p: Point, *, by: int = 1) -> tuple[Point, int]:
    print("this must not come between")
    return Point(p.y * by, p.x * by), os.getpid()


@segue.step(pool="process")
async def awaits(n: int) -> int:
    return n + 1


@segue.step(pool="process")
def halve(n: int) -> int:
    if n % 2:
        raise Odd(n)
    return n // 2


@segue.step(pool="process")
def unbuildable() -> None:
    raise Unbuildable(1, 2)


@segue.step(pool="process")
def not_json() -> object:
    return object()


@segue.step(pool="process")
def leaves() -> None:
    sys.exit(3)


@segue.step(pool="process")
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@segue.step(pool="process", retry=segue.Retry(3, wait=timedelta(0)))
def dies_once(marks: str) -> int:
    """Dies the first time."""
    mark = Path(marks) / "mark"
    if not mark.exists():
        mark.touch()
        os._exit(5)
    return os.getpid()


@segue.step(pool="process", retry=segue.Retry(3, wait=timedelta(0)), effect="at-most-once")
def once(marks: str) -> None:
    with open(Path(marks) / "begun", "a") as f:
        f.write("x")
    os._exit(5)


@segue.step(pool="process", retry=segue.Retry(3, wait=timedelta(0), on=Odd))
def picky(marks: str, n: int) -> int:
    with open(Path(marks) / "tries", "a") as f:
        f.write("x")
    if n % 2:
        raise Odd(n)
    raise KeyError(n)


@segue.step(pool="process")
def busy(marks: str, seconds: float) -> str:
    """Computes all the time, so that it can't be asked to stop."""
    Path(marks, f"{os.getpid()}.begun").touch()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
    return "done"


@segue.step(pool="process", timeout=timedelta(seconds=0.3))
def bounded(marks: str) -> None:
    Path(marks, f"{os.getpid()}.begun").touch()
    while True:
        sum(range(1000))


@segue.step(pool="process", effect="keyed")
def key() -> str:
    return segue.idempotency_key()


@segue.step(pool="process")
def verb() -> None:
    segue.now()


@segue.step(pool="process")
def number() -> int:
    return os.getpid()


def plain(n: int) -> int:
    return -n


away = segue.step(plain, pool="process")


@segue.step(pool="process")
def echo(data: str) -> int:
    return len(data)


class Crunch(msgspec.Struct):
    left: int
    done: int = 0


class Found(msgspec.Struct):
    text: str


class Cruncher(segue.Actor[str]):
    """States in other processes."""

    marks: str
    upto: int
    total: int = 0
    where: list[int] = segue.field(default_factory=list)

    def begin(self) -> Crunch:
        return Crunch(self.upto)

    @segue.state(pool="process", retry=segue.Retry(3, wait=timedelta(0)))
    def crunch(self, c: Crunch) -> segue.Again | Found:
        self.total += c.left
        self.where.append(os.getpid())
        c.left -= 1
        c.done += 1
        mark = Path(self.marks) / "mark"
        if c.left == 2 and not mark.exists():
            mark.touch()
            os._exit(5)
        return segue.Again() if c.left else Found(f"{self.total} in {c.done}")

    @segue.state
    async def found(self, f: Found) -> segue.Done[str]:
        here = os.getpid()
        return segue.Done(f"{f.text}, here {self.where.count(here)}")


class Ender(segue.Actor[Point]):
    how: str

    def begin(self) -> str:
        return "go"

    @segue.state(pool="process")
    def go(self, _: str) -> segue.Done[Point] | segue.Listen | segue.Fail | None:
        match self.how:
            case "done":
                return segue.Done(Point(1, 2))
            case "fail":
                return segue.Fail(Odd(3))
            case "raise":
                raise Odd(5)
            case "verb":
                segue.now()
            case "wrong":
                return Point(1, 2)  # type: ignore[return-value]  # on purpose
        return segue.Listen()


@dataclass(frozen=True)
class Frozen:
    rounds: list[int]


@dataclass(slots=True)
class Slotted:
    rounds: list[int]


class Rounds(segue.Actor[int]):
    """Its state, of whatever type, grows there until it has three."""

    first: str
    left: int = 9

    def begin(self) -> Frozen | Slotted | dict[str, list[int]] | list[int]:
        empty: dict[str, Frozen | Slotted | dict[str, list[int]] | list[int]] = {
            "frozen": Frozen([]), "slotted": Slotted([]), "dict": {"rounds": []}, "list": [],
        }  # fmt: skip
        return empty[self.first]

    @segue.state(pool="process")
    def of_a_class(self, state: Frozen | Slotted) -> segue.Again | segue.Done[int]:
        if isinstance(state, Slotted):
            state.rounds = [*state.rounds]
        return self.go_round(state.rounds)

    @segue.state(pool="process")
    def of_a_dict(self, state: dict[str, list[int]]) -> segue.Again | segue.Done[int]:
        return self.go_round(state["rounds"])

    @segue.state(pool="process")
    def of_a_list(self, state: list[int]) -> segue.Again | segue.Done[int]:
        return self.go_round(state)

    def go_round(self, rounds: list[int]) -> segue.Again | segue.Done[int]:
        rounds.append(os.getpid())
        self.left -= 1
        return segue.Again() if len(rounds) < 3 and self.left else segue.Done(len(rounds))
