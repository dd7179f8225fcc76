"""Messages that need nothing but their handler to be called: most of them, so this is written to be short of steps.

Where an actor waits for its next message, whoever brings it, or looks at the mailbox, calls the handlers of those that
are there, and if they wait for nothing, has the outcome committed, without a turn of the actor's own code. Whatever is
not so plain is handed to the driver.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...core.codec import encode
from ...model.message import Letter
from ...ports.store import Turn
from .life import Life
from .nexts import Answer
from .performing import Performer
from .standing import Standing

if TYPE_CHECKING:
    from .handlers import Handler

#: So many messages share one commit at most, and for so long, in seconds.
GROUP, MOMENT = 128, 0.005


class Odd(msgspec.Struct, frozen=True):
    """A message that needs the driver. `work` is what its handler has begun, or come to; None if it has not begun."""

    handler: Any = None
    letter: Any = None
    work: Awaitable[Any] | None = None


NOT_BEGUN: Final = Odd()


class Quick:
    """Carries out such messages of one actor; see `life.Serving`."""

    def __init__(
        self,
        here: Standing,
        life: Life,
        performer: Performer,
        serve: Callable[[Odd | None], Coroutine[Any, Any, bool]],
    ) -> None:
        self._here, self._life, self._performer = here, life, performer
        self.serve, self.save = serve, here.write
        self._waits = False  # the handler that was called last waits, or has waited
        self.is_full = False  #: what was carried out last is to be committed before there is more
        self.has_news = False  #: more is to be stored than that those messages were handled

    def carry_out(self, posts: OrderedDict[int, Letter], turn: Turn) -> Odd | None:
        """Carry out the first messages as far as they are plain; the next one, if it isn't."""
        stretch, self._waits = self._stretch(posts, turn), False
        try:
            waits = stretch.send(None)
        except StopIteration as stop:
            self.has_news = self._here.unwritten
            odd: Odd | None = stop.value
            return odd
        self._waits = True
        letter = next(iter(posts.values()))
        return self._odd(self._here.quick[letter.mail.name], letter, self._life.going_on(stretch, waits))

    async def _stretch(self, posts: OrderedDict[int, Letter], turn: Turn) -> Any:
        """As `carry_out`; but what its handler gives, of a message that waits. To await one costs less than to send."""
        here, life, branch, consumed = self._here, self._life, self._performer.branch, turn.consumed
        quick, actor, fields, save, at = here.quick, here.actor, here.fields, self.save, here.at
        letters, self.is_full = tuple(islice(posts.values(), max(GROUP - len(consumed), 1))), False
        until = monotonic() + MOMENT if len(letters) > 1 else 0.0
        for letter in letters:
            mail = letter.mail
            handler = quick.get(mail.name)
            if handler is None or mail.callers:
                return NOT_BEGUN
            try:
                value = handler.parse(mail.value or b"null")
            except Exception:  # it will be raised again, where it is dealt with
                return NOT_BEGUN
            if mail.at > at:
                at = mail.at
                life.set_time(at)
            method, answer = handler.method, None
            branch.path = f"/{method}.{here.turns}"
            if life.followed and handler.is_request:
                life.takes(letter, branch.path, keeps=False)
            work: Coroutine[Any, Any, Any] = getattr(actor, method)(value)
            try:
                result = await work
            except BaseException as error:
                if self._waits:
                    raise
                return self._odd(handler, letter, _come_to(None, error))
            if self._waits:
                return result
            if not self.is_plain(handler, result):
                return self._odd(handler, letter, _come_to(result, None))
            try:
                if handler.is_request:
                    answer = encode(result, where=handler.answers)
                if fields.hold(actor):
                    here.unwritten = True
            except BaseException:  # so here
                return self._odd(handler, letter, _come_to(result, None))
            here.at = at
            if here.only_listens:
                here.turns += 1
            else:
                here.keep()
            del posts[letter.id]
            consumed.append(letter.id)
            if answer is not None and (reply := life.answer_to(mail, answer, None)) is not None:
                turn.outbox.append(reply)
            life.saved = save
            if posts and monotonic() > until:
                break
        self.is_full = bool(posts)
        return None

    def is_plain(self, handler: Handler, result: Any) -> bool:
        """Whether that is all: nothing was recorded or begun, and the next message is what is next."""
        branch = self._performer.branch
        return not (
            branch.n
            or branch.timeouts
            or branch.kids is not None
            or (result is not None and (not handler.is_request or isinstance(result, Answer)))
        )

    def _odd(self, handler: Handler, letter: Letter, work: Awaitable[Any]) -> Odd:
        self._performer.at_work = handler.method
        return Odd(handler, letter, work)


async def _come_to(result: Any, error: BaseException | None) -> Any:
    """What a handler has come to."""
    if error is not None:
        raise error
    return result
