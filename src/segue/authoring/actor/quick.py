"""Messages that need nothing but their handler to be called: most of them, so this is written to be short of steps.

Where an actor waits for its next message, whoever brings it calls the handler and, if that waits for nothing, has the
outcome committed, without a turn of the actor's own code. Whatever is not so plain is handed to the driver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ...core.codec import encode
from ...model.message import Letter
from ...ports.store import Turn
from .interlude import Interlude
from .life import Life
from .nexts import Answer
from .performing import Performer
from .standing import Standing

if TYPE_CHECKING:
    from .handlers import Handler


class Quick:
    """Carries out such messages of one actor; see `life.Serving`."""

    def __init__(
        self,
        here: Standing,
        life: Life,
        performer: Performer,
        interlude: Interlude,
        serve: Callable[[], Coroutine[Any, Any, bool]],
        otherwise: Callable[[Letter, Awaitable[Any]], Coroutine[Any, Any, bool]],
    ) -> None:
        self._here, self._life, self._performer, self._interlude = here, life, performer, interlude
        self.serve, self.otherwise = serve, otherwise
        self.save: Callable[[Turn], None] = here.write
        self._changed = False  # the fields, by the message that was carried out last
        self.handler: Handler  #: of the message that was begun last

    def begin(self, letter: Letter) -> Coroutine[Any, Any, Any] | None:
        """A message's handler, to be carried out; None where more is to be done."""
        here, mail, performer = self._here, letter.mail, self._performer
        handler = here.quick.get(mail.name)
        if handler is None or mail.callers or mail.due:
            return None
        try:
            value = handler.read(mail.value or b"null")
        except Exception:  # it will be raised again, where it is dealt with
            return None
        if mail.at > here.at:
            here.at = mail.at
            self._life.set_time(mail.at)
        branch, method = performer.branch, handler.method
        if branch.n or branch.timeouts or branch.kids is not None:
            performer.enter(method)
        else:
            branch.path = f"/{method}.{here.turns}"
        if handler.is_request and self._life.watchers:
            self._life.takes(letter, branch.path, keeps=False)
        self.handler, performer.at_work = handler, method
        work: Coroutine[Any, Any, Any] = getattr(here.actor, method)(value)
        return work

    def is_plain(self, result: Any) -> bool:
        """Whether that is all: nothing was recorded or said beside, and the next message is what is next."""
        if result is not None and (not self.handler.is_request or isinstance(result, Answer)):
            return False
        return self._performer.is_quiet and self._interlude.quiet

    def done(self, result: Any) -> bytes | None:
        """What the handler returned holds; a request's answer. Raises `NotEncodable`, and then nothing holds."""
        here, handler, value = self._here, self.handler, None
        self._performer.at_work = ""
        fields, actor = here.fields, here.actor
        looked = fields.look(actor)
        if handler.is_request:
            then: object = None
            if isinstance(result, Answer):
                result, then = result.value, result.then
            value = encode(result, where=handler.answers)
            if then is not None:
                here.go(then)
        elif result is not None:
            here.go(result)
        self._changed = here.fresh or fields.take(looked, actor)
        here.attempt = 0
        return value

    def write(self, turn: Turn) -> None:
        """Have a turn store what was done by a message that was plain, if that is anything but another turn."""
        here = self._here
        if here.keep_listening() or self._changed:
            here.write(turn)
