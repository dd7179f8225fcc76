"""What a request's handler says that it answers: told when its class is checked, where who asks couldn't read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
import pydantic
import pytest

import segue
from segue import Actor, Again, Answer, Done, Fail, Listen, Request, Responder
from segue.errors import BadSignature

T = TypeVar("T")


@dataclass
class Label:
    topic: str


@dataclass
class Rated(Label):
    stars: int = 0


@dataclass
class Working:
    at: int = 0


class Model(pydantic.BaseModel):
    topic: str


class Struct(msgspec.Struct):
    topic: str


class Title(Request[str]): ...


class Count(Request[int]): ...


class Nothing(Request[None]): ...


class Labels(Request[Label]): ...


class Models(Request[Model]): ...


class Structs(Request[Struct]): ...


class Perhaps(Request[int | None]): ...


class Anything(Request[Any]): ...


class Untyped(Request): ...  # type: ignore[type-arg]  # it may be written so


class Of(Request[T], Generic[T]): ...


class Labelled(Of[Label]): ...


class Watch(segue.Subscription[int, str]): ...


def checked(takes: type[Any], returns: Any, *, responder: Any = None) -> None:
    """Check an actor with one handler of that request, annotated so."""

    async def handle(self: Any, m: Any) -> Any: ...

    async def keep(self: Any, m: Any, reply: Any) -> Any: ...

    one = keep if responder else handle
    one.__annotations__ = {"m": takes, "return": returns} | ({"reply": responder} if responder else {})
    if returns is ...:
        del one.__annotations__["return"]

    class Asked(Actor[None]):
        def begin(self) -> Working:
            return Working()

        @segue.state
        async def work(self, s: Working) -> Listen:
            return Listen()

        handler = segue.on(one)

    Asked.__segue__.check()  # type: ignore[attr-defined]  # set when the class is made


@pytest.mark.parametrize(
    ("takes", "returns", "told"),
    [
        (Count, str, r"Asked.handler: it answers Count with str, and int is wanted; answer with what is wanted, or "),
        (Count, str, r"or write `class Count\(Request\[str\]\)`"),
        (Count, None, "answers Count with None, and int"),
        (Count, bool, "answers Count with bool, and int"),
        (Count, int | None, "answers Count with None, and int"),
        (Nothing, int, "answers Nothing with int, and None"),
        (Perhaps, str | None, r"answers Perhaps with str, and int \| None"),
        (Count, Answer[str], "answers Count with str, and int is wanted"),
        (Count, Answer[str, Working], "answers Count with str, and int is wanted"),
        (Count, int | Answer[str | int, Working], "answers Count with str, and int is wanted"),
        (Labels, Working, r"which wants Label, and Working is none; return Answer\(value, then=Working"),
        (Count, int | Working, r"and annotate it as Answer\[int, Working\]"),
        (Count, Done[None], r"return Answer\(value, then=Done\(…\)\), and annotate it as Answer\[int, Done\[None\]\]"),
        (Anything, Listen, "which wants Any, and Listen is none"),
        (Count, int | Again, "and Again is none"),
        (Count, Fail, "and Fail is none"),
        (Labels, Struct | int, "answers Labels with int, and Label is wanted"),
        (Labels, list[Label], r"with list\[Label\], and Label"),
        (Models, str, "answers Models with str, and Model"),
        (Structs, Working, "which wants Struct, and Working is none"),
        (Labelled, int, "answers Labelled with int, and Label is wanted"),
        (Watch, str, "answers Watch with str, and int is wanted"),
    ],
)  # fmt: skip
def test_an_answer_that_nobody_could_read(takes: type[Any], returns: Any, told: str) -> None:
    with pytest.raises(BadSignature, match=told):
        checked(takes, returns)


@pytest.mark.parametrize(
    ("takes", "returns"),
    [
        (Count, ...),
        (Count, int),
        (Count, Any),
        (Count, object),
        (Count, NoReturn),
        (Count, T),
        (Count, Answer),
        (Count, Answer[int]),
        (Count, int | Answer[int, Working]),
        (Count, Answer[int, Working | Done[None]]),
        (Count, Answer[Any, Working]),
        (Nothing, None),
        (Perhaps, int),
        (Perhaps, None),
        (Labels, Label),
        (Labels, Rated),
        (Labels, dict[str, str]),
        (Labels, Struct),
        (Models, Model),
        (Models, Label),
        (Structs, Struct | Label),
        (Anything, int | Working),
        (Untyped, int),
        (Of, int),
        (Labelled, Label),
        (Watch, int),
        (Labels, Sequence[Any]),
    ],
)
def test_one_that_can_be_read_or_cant_be_judged(takes: type[Any], returns: Any) -> None:
    checked(takes, returns)


def test_a_kept_responder() -> None:
    checked(Count, None, responder=Responder)
    checked(Count, Working, responder=Responder[int])  # what it returns is next, and no answer
    with pytest.raises(BadSignature, match="answers Count with str, and int is wanted"):
        checked(Count, None, responder=Responder[str])


def test_a_fallback_answers_too() -> None:
    class Falls(Actor[None]):
        @segue.on
        async def count(self, m: Count) -> int:
            return 1

        @segue.fallback
        async def instead(self, m: Count, error: OSError) -> str:
            return "one"

    with pytest.raises(BadSignature, match=r"Falls\.instead: it answers Count with str, and int is wanted"):
        Falls.__segue__.check()  # type: ignore[attr-defined]  # as above


def test_a_method_that_answers_several_requests() -> None:
    """What it says that it answers is for one of them at least."""

    class Both(Actor[None]):
        @segue.on
        async def tell(self, m: Count | Title) -> int | str:
            return 1 if isinstance(m, Count) else "one"

        @segue.fallback
        async def instead(self, m: Count | Title, error: OSError) -> int | str:
            return 0

    class Neither(Actor[None]):
        @segue.on
        async def tell(self, m: Count | Title) -> int | list[int]:
            return 1

    Both.__segue__.check()  # type: ignore[attr-defined]  # as above
    with pytest.raises(
        BadSignature, match=r"Neither\.tell: it answers Count with list\[int\], and int is wanted"
    ):
        Neither.__segue__.check()  # type: ignore[attr-defined]  # as above


def test_a_state_may_be_an_answer() -> None:
    class Where(Request[Working]): ...

    checked(Where, Working)


async def test_it_is_told_before_anything_begins() -> None:
    class Wrong(Actor[None]):
        @segue.on
        async def count(self, m: Count) -> str:
            return "one"

    async with segue.Engine() as engine:
        with pytest.raises(BadSignature, match=r"Wrong\.count"):
            await engine.start(Wrong(), id="wrong")
        assert await engine.store.get("wrong") is None
