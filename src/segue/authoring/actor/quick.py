"""Messages that need nothing but their handler to be called: most of them, so this is written to be short of steps.

Where an actor waits for its next message, whoever brings it, or looks at the mailbox, calls the handlers of those that
are there, and if they wait for nothing, has the outcome committed, without a turn of the actor's own code. Whatever is
not so plain is handed to the driver.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Generator
from itertools import islice
from time import monotonic
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any, Final, cast

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
_NONE: Final = Odd()


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
        self._stretches: Any = None
        # The handler that was called last waits, or has waited; its generator is that handler's from then on.
        self._waits = False
        #: What was carried out last is to be committed before there is more. Who carries out otherwise sets it back.
        self.is_full = False
        self.has_news = False  #: more is to be stored than that those messages were handled

    def carry_out(self, posts: OrderedDict[int, Letter], turn: Turn) -> Odd | None:
        """Carry out the first messages as far as they are plain; the next one, if it isn't."""
        stretches, self._stretches = self._stretches, None  # where it raises, it is over
        if stretches is None:
            stretches, self._waits = cast("Any", self._all_stretches()), False
            next(stretches)
        given = stretches.send((posts, turn))
        if type(given) is Odd:
            self._stretches, self.has_news = stretches, self._here.unwritten
            return None if given is _NONE else given
        self._waits = True  # for what was given
        letter = next(iter(posts.values()))
        return self._odd(self._here.quick[letter.mail.name], letter, self._life.going_on(stretches, given))

    def let_go(self) -> None:
        """Let the generator go: it holds the last messages, and tracebacks of what handlers raised have its frame."""
        self._stretches = None

    @coroutine
    def _all_stretches(self) -> Generator[Any, Any, Any]:
        """As `carry_out`, again and again; of a message that waits, what its handler gives, and at last returns.

        To go on costs less than to begin, and to await a handler less than to send.
        """
        here, life, branch, save = self._here, self._life, self._performer.branch, self.save
        odd = _NONE
        while True:
            posts, turn = yield odd
            quick, actor, fields, at, consumed = here.quick, here.actor, here.fields, here.at, turn.consumed
            if len(posts) == 1:
                letters, until, odd = tuple(posts.values()), 0.0, _NONE
            else:
                letters = tuple(islice(posts.values(), max(GROUP - len(consumed), 1)))
                until, odd = monotonic() + MOMENT, _NONE
            for letter in letters:
                mail = letter.mail
                handler = quick.get(mail.name)
                if handler is None or mail.callers:
                    odd = NOT_BEGUN
                    break
                try:
                    value = handler.parse(mail.value or b"null")
                except Exception:  # it will be raised again, where it is dealt with
                    odd = NOT_BEGUN
                    break
                if mail.at > at:
                    at = mail.at
                    life.set_time(at)
                method, answer = handler.method, None
                branch.path = f"/{method}.{here.turns}"
                if life.followed and handler.is_request:
                    life.takes(letter, branch.path, keeps=False)
                try:
                    work = getattr(actor, method)(value)
                    steps: Any = work if type(work) is CoroutineType else _come_to(work)
                    result = yield from steps
                except BaseException as error:
                    if self._waits:
                        raise
                    odd = self._odd(handler, letter, _fail(error))
                    break
                if self._waits:
                    return result
                if (
                    branch.n
                    or branch.timeouts
                    or branch.kids is not None
                    or (result is not None and (not handler.is_request or isinstance(result, Answer)))
                ):  # something was recorded or begun, or is next but the next message
                    odd = self._odd(handler, letter, _return(result))
                    break
                try:
                    if handler.is_request:
                        answer = encode(result, where=handler.answers)
                    if fields.hold(actor):
                        here.unwritten = True
                except BaseException:  # so here
                    odd = self._odd(handler, letter, _return(result))
                    break
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
            self.is_full = odd is _NONE and bool(posts)

    def _odd(self, handler: Handler, letter: Letter, work: Awaitable[Any]) -> Odd:
        self._performer.at_work = handler.method
        return Odd(handler, letter, work)


# What a handler has come to, or comes to.
async def _come_to(work: Awaitable[Any]) -> Any:
    return await work


async def _return(result: Any) -> Any:
    return result


async def _fail(error: BaseException) -> Any:
    try:
        raise error
    finally:
        del error  # whose traceback has this frame
