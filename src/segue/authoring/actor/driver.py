"""One wake of an actor: turn after turn, each sealed by a commit."""

from __future__ import annotations

import logging
from asyncio import Future
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ...core.codec import decoder, encode
from ...model.entry import Failure
from ...model.errors import BadSignature
from ...model.message import Letter, Mail
from ...model.mode import Config
from ...ports.store import Claimed
from ..context import current
from ..failures import to_failure
from ..mail import message_name
from .checkpoint import Checkpoint, read_checkpoint
from .nexts import Again, Answer, Done, Fail, Listen

if TYPE_CHECKING:
    from .definition import ActorDef, Handler

log = logging.getLogger("segue")


class Life(Protocol):
    """What an actor's code needs of the wake that it runs in."""

    id: str
    callers: tuple[str, ...]

    def next_mail(self) -> Future[Letter]:
        """The first message in the inbox, when there is one; it stays there."""
        ...

    def seal(self, checkpoint: bytes) -> Future[None]:
        """Commit a transition: fields written, message consumed, mail sent, journal sealed."""
        ...

    def close_letter(self, letter: Letter, reply: Mail | None) -> None:
        """Have the next commit consume a message and send its answer."""
        ...

    def off_loop(self, fn: Callable[[], Any]) -> Future[Any]:
        """Run a function on a thread, as work of this wake."""
        ...

    def next_number(self) -> int: ...
    def now(self) -> float: ...


class Driver:
    """One wake of an actor."""

    def __init__(self, definition: ActorDef, claimed: Claimed, life: Life) -> None:
        self.definition, self.life = definition, life
        self.states, self.messages = definition.table()
        spec = claimed.head.spec
        self.begun = claimed.checkpoint is not None
        if claimed.checkpoint is not None:
            stored = read_checkpoint(claimed.checkpoint)
        else:
            stored = Checkpoint(msgspec.json.decode(spec.args, type=dict[str, msgspec.Raw]))
        self.turns = stored.turns
        self.fields = stored.fields  # as they were after the last turn
        self.actor = self._load(stored.fields)
        self.state: Any = None
        if stored.state:
            self.state = decoder(self.states[stored.state].takes)(bytes(stored.data))

    def _load(self, fields: dict[str, msgspec.Raw]) -> Any:
        """An instance with its stored fields; those that the class has gained take their defaults."""
        values = {
            name: decoder(tp)(bytes(fields[name]))
            for name, tp in self.definition.durable.items()
            if name in fields
        }
        return self.definition.cls(**values)

    def _restore(self) -> None:
        """Give the fields the values that they had after the last turn, and listen."""
        self.state = None
        for name, tp in self.definition.durable.items():
            if name in self.fields:
                setattr(self.actor, name, decoder(tp)(bytes(self.fields[name])))

    async def run(self) -> bytes:
        if not self.begun:
            self._go(self.actor.begin())
            await self._seal()
        while True:
            if isinstance(self.state, Done):
                return encode(self.state.value, where=f"the result of actor {self.definition.name!r}")
            if isinstance(self.state, Fail):
                raise self.state.error
            if self.state is not None:
                await self._work()
            else:
                await self._listen()

    async def _work(self) -> None:
        """One turn of the state that is next."""
        handler = self.states[message_name(type(self.state))]
        self._go(await self._handle(handler, self.state))
        await self._seal()

    async def _listen(self) -> None:
        """One message."""
        letter = await self.life.next_mail()
        mail = letter.mail
        handler = self.messages.get(mail.name)
        reply: Mail | None = None
        if handler is None:
            known = ", ".join(sorted(self.messages)) or "none"
            text = f"actor {self.definition.name!r} takes no {mail.name!r}; it takes {known}"
            log.warning("run %s: %s", self.life.id, text)
            reply = self._reply(mail, None, Failure("builtins:TypeError", text, encode([text])))
        else:
            self.life.callers = mail.callers
            reply = await self._answer(handler, mail)
            self.life.callers = ()
        self.life.close_letter(letter, reply)
        await self._seal()

    async def _answer(self, handler: Handler, mail: Mail) -> Mail | None:
        try:
            result = await self._handle(handler, decoder(handler.takes)(mail.value or b"null"))
            if not handler.is_request:
                self._go(result)
                return None
            if isinstance(result, Answer):
                self._go(result.then)
                result = result.value
            value = encode(result, where=f"the answer of {self.definition.name}.{handler.method}")
            return self._reply(mail, value, None)
        except Exception as error:  # the caller gets it; the actor goes on as it was before
            self._restore()
            if not handler.is_request:
                log.exception("run %s: %s.%s failed", self.life.id, self.definition.name, handler.method)
            return self._reply(mail, None, to_failure(error))

    def _reply(self, mail: Mail, value: bytes | None, error: Failure | None) -> Mail | None:
        if mail.reply is None:
            return None
        number = self.life.next_number()
        return Mail(
            mail.reply.run,
            self.life.id,
            number,
            "result",
            "",
            value,
            error,
            call=mail.reply,
            at=self.life.now(),
        )

    async def _handle(self, handler: Handler, what: Any) -> Any:
        branch = current("handler")
        branch.path = (
            f"/{handler.method}.{self.turns}"  # so that no two calls of an actor's life have one place
        )
        self.turns += 1
        outer = branch.run.config
        if handler.mode is not None:
            branch.run.config = Config(mode=handler.mode).over(outer)
        method = getattr(self.actor, handler.method)
        try:
            if handler.is_async:
                return await method(what)
            return await self.life.off_loop(lambda: method(what))
        finally:
            branch.run.config = outer

    def _go(self, result: Any) -> None:
        """What a handler returned says what is next."""
        if result is Again or isinstance(result, Again):
            return
        if result is None or result is Listen or isinstance(result, Listen):
            self.state = None
        elif isinstance(result, Done | Fail) or message_name(type(result)) in self.states:
            self.state = result
        else:
            raise BadSignature(
                self.definition.name,
                f"a handler returned {result!r}, which is no state of it",
                "return a state, Listen(), Again(), Done(…) or Fail(…)",
            )

    async def _seal(self) -> None:
        """Commit the turn; the last one is the commit that ends the run."""
        if isinstance(self.state, Done | Fail):
            return
        where = self.definition.name
        self.fields = {
            name: msgspec.Raw(encode(getattr(self.actor, name), where=f"{where}.{name}"))
            for name in self.definition.durable
        }
        checkpoint = Checkpoint(
            self.fields,
            "" if self.state is None else message_name(type(self.state)),
            msgspec.Raw(encode(self.state, where=f"a state of {where}")),
            self.turns,
        )
        await self.life.seal(msgspec.json.encode(checkpoint))
