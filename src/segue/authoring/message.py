"""Messages: what actors and flows are told and asked, and what carries an answer."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, TypeVar, dataclass_transform, get_args, get_origin

import msgspec

from ..core.codec import decoder, digest, encode, encode_stable, raw_decoder
from ..core.forms import origin, substitute
from ..model.message import Answered, Mail, MailKind, answer_to, response_name
from ..model.run import CallRef
from ..ports.store import Turn
from .context import Act, current
from .failures import to_exception, to_failure

T = TypeVar("T")
M = TypeVar("M")
R_co = TypeVar("R_co", covariant=True)


@dataclass_transform()
class Note:
    """A message that wants no answer. Its annotated fields are what it carries.

    It is a dataclass as it stands; what else that may be is said in its head: `class Sale(Note, frozen=True)`.
    """

    def __init_subclass__(cls, *, frozen: bool = False, kw_only: bool = False, **how: Any) -> None:
        super().__init_subclass__(**how)
        dataclasses.dataclass(cls, frozen=frozen, kw_only=kw_only)


@dataclass_transform()
class Request(Generic[R_co]):
    """A message that wants an answer: `class Say(Request[str])` is answered with a text. Else it is as a `Note`."""

    def __init_subclass__(cls, *, frozen: bool = False, kw_only: bool = False, **how: Any) -> None:
        super().__init_subclass__(**how)
        dataclasses.dataclass(cls, frozen=frozen, kw_only=kw_only)


def response_type(request: type[Any]) -> Any:
    """The type of the answer that a request wants; of a generic one, with what its parameters are."""
    cls = origin(request)
    given = dict(zip(getattr(cls, "__parameters__", ()), get_args(request), strict=False))
    for owner in getattr(cls, "__mro__", ()):
        for base in getattr(owner, "__orig_bases__", ()):
            of = get_origin(base)
            if isinstance(of, type) and issubclass(of, Request):
                wanted = substitute(get_args(base)[0], given)
                if not isinstance(wanted, TypeVar):
                    return wanted
    return Any


def message_name(tp: Any) -> str:
    """The name by which mail of a type is told from other mail."""
    if not isinstance(tp, type) and get_origin(tp) is Response:
        return response_name(message_name(get_args(tp)[0]))
    return str(getattr(tp, "__qualname__", tp)).replace("<locals>.", "")


def is_urgent(tp: type[Any]) -> bool:
    """Whether messages of a class say that they are urgent: by what the class has, not by a field of that name."""
    cls = origin(tp)
    fields = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else ()
    said = getattr(cls, "urgent", False)  # for a field, classes of other kinds have a descriptor of their own
    return (said is True or isinstance(said, property)) and "urgent" not in fields


def kind_of(message: Any, plain: MailKind) -> MailKind:
    """How a message travels whose class may say that it is urgent: as others do, unless it says so."""
    return "urgent" if message.urgent else plain


def _sent_as(message: type[Any]) -> tuple[str, bool]:
    return message_name(message), is_urgent(message)


def _asked_as(request: type[Any]) -> tuple[str, bool, Callable[[bytes], Any]]:
    name = message_name(request)
    return name, is_urgent(request), decoder(response_type(request), f"the answer to {name}")


#: Under what name messages of a class travel, and whether they may be `urgent`. Found once.
sent_as: Callable[[type[Any]], tuple[str, bool]]
sent_as = functools.lru_cache(maxsize=4096)(_sent_as)  # type: ignore[assignment]  # classes hash
#: The same of requests, and what reads the answers to them.
asked_as: Callable[[type[Any]], tuple[str, bool, Callable[[bytes], Any]]]
asked_as = functools.lru_cache(maxsize=4096)(_asked_as)  # type: ignore[assignment]  # so here


def message_reader(tp: Any, where: str = "") -> Callable[[bytes], Any]:
    """What reads mail of a type, which goes to `where`. Raises `BadSignature` for a type that JSON can't fill."""
    where = where or f"the message {message_name(tp)}"
    if get_origin(tp) is not Response:
        return decoder(tp, where)
    read_value = decoder(response_type(get_args(tp)[0]), where)

    def read(data: bytes) -> Response[Any]:
        wire = _read_answered(data)
        if wire.error is not None:
            return Response(None, to_exception(wire.error), wire.tag)
        return Response(read_value(bytes(wire.value)), None, wire.tag)

    return read


def message_parser(tp: Any) -> Callable[[bytes], Any]:
    """As `message_reader`, of which every error is to be raised anew: in words for its author."""
    return message_reader(tp) if get_origin(tp) is Response else raw_decoder(tp)


_read_answered = msgspec.json.Decoder(Answered).decode


class Response(Generic[M]):
    """The answer to a request that was forwarded, as a message: `@on def got(self, r: Response[Say])`.

    `value` is None where `error` isn't; `tag` is the one that the request was forwarded with.
    """

    def __init__(self, value: Any, error: Exception | None = None, tag: str = "") -> None:
        self.value, self.error, self.tag = value, error, tag

    def __repr__(self) -> str:
        what = f"value={self.value!r}" if self.error is None else f"error={self.error!r}"
        return f"Response({what}, tag={self.tag!r})"

    def result(self) -> Any:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


class Responder(msgspec.Struct, Generic[T], frozen=True):
    """Where the answer to a request goes. A handler that takes one as its second argument answers when it likes.

    A value: it may be kept in a field, or sent to another actor, which then answers. The first answer counts. If the
    actor that was asked ends, the caller gets `RunEnded`, and `Restarted` if it begins anew and has this in a field.
    """

    reply: CallRef
    request: str  #: the message's name
    keeper: str  #: the run that was asked
    letter: int
    callers: tuple[str, ...] = ()
    tag: str = ""
    forwarded: bool = False

    @classmethod
    def of(cls, keeper: str, letter: int, mail: Mail) -> Responder[Any]:
        """For a request in that run's inbox."""
        reply = mail.reply or CallRef("", "", 0)
        return Responder(reply, mail.name, keeper, letter, mail.callers, mail.tag, mail.forwarded)

    async def send(self, value: T) -> None:
        """Answer; leaves with this run's next commit."""
        await self._answer(encode_stable(value, where=f"the answer to {self.request}"), None)

    async def fail(self, error: Exception) -> None:
        """Have the caller get an error."""
        await self._answer(None, error)

    async def _answer(self, value: bytes | None, error: Exception | None) -> None:
        branch = current("reply")
        run = branch.run
        if not self.reply.run:  # it was told, and nobody waits
            return
        failure = None if error is None else to_failure(error)
        asked = Mail(
            self.keeper, self.reply.run, 0, "request", self.request,
            reply=self.reply, callers=self.callers, tag=self.tag, forwarded=self.forwarded,
        )  # fmt: skip
        args = encode([self, failure if value is None else msgspec.Raw(value)])
        again = self.forwarded and self.keeper == run.id and not run.letters.owes(self.letter)
        if self.keeper == run.id:
            run.letters.answered(self.letter)

        def writes(turn: Turn, path: str, n: int) -> None:
            if again:  # no call waits that would take the first one alone
                return
            now = run.now()
            answer = answer_to(asked, run.id, run.next_number(), value, failure, now)
            assert answer is not None  # it has a reply
            turn.outbox.append(answer)
            if self.keeper == run.id:
                run.letters.release(self.letter)
            else:
                word = encode(self.letter)
                settled = Mail(self.keeper, run.id, run.next_number(), "settled", value=word, at=now)
                turn.outbox.append(settled)

        act = Act(
            kind="reply", name=self.request, args=args, digest=digest(args), decode=nothing, writes=writes
        )
        await run.record(branch, act)


def responders(keeper: str, text: bytes) -> set[int]:
    """The letters of requests to that run whose responders lie in a JSON text."""
    found = re.findall(rb'"keeper":%s,"letter":(\d+)' % re.escape(encode(keeper)), text)
    return {int(letter) for letter in found}


def nothing(value: bytes) -> None:
    """What a call gives that gives nothing."""
    return None


class Mailbox(msgspec.Struct, frozen=True):
    """How many messages may wait for an actor: `mailbox = segue.Mailbox(100, full="wait")` in its class.

    When it is `full`, the next one waits with its sender, in order (outside runs, `tell` waits); or is dropped, and
    becomes a dead letter; or fails: `tell` outside runs raises `MailboxFull`, a request gets it as its answer, and a
    run's note becomes a dead letter.
    """

    size: int
    full: Literal["wait", "drop", "fail"] = "wait"

    def __post_init__(self) -> None:
        if self.size < 1 or self.full not in ("wait", "drop", "fail"):
            raise ValueError(
                f"{self!r}: a mailbox has room for one message at least, and waits, drops or fails"
            )


class Pong(msgspec.Struct, frozen=True):
    """The answer to a ping: when it was sent, and when the run read it."""

    sent: datetime
    handled: datetime

    @property
    def waited(self) -> timedelta:
        """How long the run took to look at its mail."""
        return self.handled - self.sent


def read_pong(data: bytes) -> Pong:
    """From the mail that brings it."""
    sent, handled = msgspec.json.decode(data, type=tuple[float, float])
    return Pong(datetime.fromtimestamp(sent, UTC), datetime.fromtimestamp(handled, UTC))
