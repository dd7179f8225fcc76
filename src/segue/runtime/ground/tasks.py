"""Numbering the tasks that a run starts, and telling whether they are at rest.

A task factory, chained before the one that the loop has, gives each task that a run's code starts a branch.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
from asyncio import AbstractEventLoop, Future, Task
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from pathlib import Path
from types import CodeType, coroutine
from typing import Any, NamedTuple, Protocol

from ...authoring.context import BRANCH, HOME, Branch, BranchTask, find_branch

#: An empty context for callbacks of the engine's own.
NO_CONTEXT = Context()

_FINALISERS = frozenset({"async_generator_athrow", "async_generator_asend"})
#: What `await` makes of an awaitable's or an async generator's next step; says nothing of what it waits on.
_WRAPPERS = frozenset(
    {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"}
)
_WAIT_FOR: CodeType | None = asyncio.wait_for.__code__ if sys.version_info < (3, 12) else None
_GATHERING = "_GatheringFuture"
_BOUNDING = (asyncio.tasks._wait.__code__, _WAIT_FOR)  # type: ignore[attr-defined]
_OWN = str(Path(__file__).parents[2]) + os.sep
_PASSIVE_FILES = ("asyncio/locks.py", "asyncio/queues.py", "asyncio/taskgroups.py")
_PASSIVE_NAMES = frozenset({"_wait", "wait_for", "_wait_for_one", "__anext__", "gather"})
#: Where anyio's locks and groups wait by themselves, and by asyncio's. Its sockets and processes wait by those too.
_ANYIO = "anyio/_backends/_asyncio.py"
_ANYIO_PASSIVE = frozenset({"TaskGroup.__aexit__", "TaskGroup.start", "Lock.acquire", "Semaphore.acquire"})
_ANYIO_LOCKS = frozenset({"Event.wait", "CapacityLimiter.acquire_on_behalf_of"})


class Owner(Protocol):
    """The run whose tasks these are."""

    def adopt(self, task: Task[Any]) -> None: ...


def install(loop: AbstractEventLoop) -> Callable[[], None]:
    """Number the tasks of runs on this loop; the return value takes it back."""
    inner = loop.get_task_factory()

    def factory(loop: AbstractEventLoop, coro: Any, **how: Any) -> Any:
        branch = find_branch()
        if branch is None or type(coro).__name__ in _FINALISERS:
            return Task(coro, loop=loop, **how) if inner is None else inner(loop, coro, **how)
        return start(loop, coro, _branch_for(branch, coro), how.get("context"), how.get("name"))

    loop.set_task_factory(factory)
    HOME.enter(loop)
    plain, eager = asyncio.as_completed, getattr(asyncio, "eager_task_factory", None)

    def ordered(fs: Iterable[Any], **how: Any) -> Any:
        if find_branch() is not None:
            fs = [asyncio.ensure_future(f) for f in fs]
        return plain(fs, **how)

    def patient(loop: AbstractEventLoop, coro: Any, **how: Any) -> Any:
        return factory(loop, coro, **how) if eager is None or find_branch() else eager(loop, coro, **how)

    takes_back = [_replace("as_completed", ordered), _carry_along(loop)]
    if eager is not None:  # such a task has no branch: a library that makes one gets a task of the run
        takes_back.append(_replace("eager_task_factory", patient))

    def restore() -> None:
        if loop.get_task_factory() is factory:
            loop.set_task_factory(inner)
        HOME.forget()
        for take_back in takes_back:
            take_back()

    return restore


def _carry_along(loop: AbstractEventLoop) -> Callable[[], None]:
    """Have what runs hand to threads know whose it is, as with `to_thread`; the return value takes it back."""
    plain: Any = loop.run_in_executor
    own = getattr(plain, "__func__", None) is not getattr(type(loop), "run_in_executor", None)

    def carrying(executor: Any, fn: Callable[..., Any], *args: Any) -> Any:
        if find_branch() is not None and isinstance(executor, ThreadPoolExecutor | None):
            return plain(executor, functools.partial(copy_context().run, fn, *args))
        return plain(executor, fn, *args)  # no context goes to another process

    def put(
        value: Any,
    ) -> None:  # not by `vars`: a loop whose dict was asked for is a tenth slower from then on
        loop.run_in_executor = value  # type: ignore[method-assign]

    def restore() -> None:
        if loop.run_in_executor is not carrying:
            return
        if own:
            put(plain)
        else:
            del loop.run_in_executor

    put(carrying)
    return restore


def _replace(name: str, new: Any) -> Callable[[], None]:
    """Put something in the place of asyncio's own; the return value takes it back, unless it was replaced again."""
    old = getattr(asyncio, name)

    def put(value: Any) -> None:
        setattr(asyncio, name, value)
        setattr(asyncio.tasks, name, value)

    put(new)
    return lambda: put(old) if getattr(asyncio, name) is new else None


def start(
    loop: AbstractEventLoop,
    coro: Any,
    branch: Branch,
    context: Context | None = None,
    name: str | None = None,
) -> BranchTask:
    """Start a task of that branch, and have its run keep it."""
    context = copy_context() if context is None else context
    context.run(BRANCH.set, branch)
    task = BranchTask(coro, loop=loop, context=context, name=name)
    task.branch, task.within, task.outside = branch, context, None
    branch.run.adopt(task)  # type: ignore[attr-defined]  # RunContext is what authors' code sees of it
    return task


def _branch_for(parent: Branch, coro: Any) -> Branch:
    """A new branch, except for the task that `wait_for` makes before Python 3.12 and not after."""
    if _WAIT_FOR is not None:
        frame = sys._getframe(2)
        for _ in range(5):
            if frame.f_code is _WAIT_FOR:
                return parent
            if frame.f_back is None:
                break
            frame = frame.f_back
    name: str = getattr(coro, "__qualname__", None) or type(coro).__name__
    return parent.child(name.rpartition(".")[2])


def act_for(loop: AbstractEventLoop, task: BranchTask, fn: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in the name of a task that waits, in its context."""
    here = None if _CURRENT is None else _CURRENT.get(loop)
    if _CURRENT is None or here is None:
        here = _swap(loop, task)
        try:
            return task.within.run(fn, *arguments)
        finally:
            _swap(loop, here)
            del task  # what it raises may become its task's, and its trace has this frame
    _CURRENT[loop] = task  # as `_swap`, without its calls
    try:
        return task.within.run(fn, *arguments)
    finally:
        _CURRENT[loop] = here
        del task


#: Whose turn it is, by loop; from Python 3.12 on nobody can look.
_CURRENT: dict[AbstractEventLoop, Task[Any]] | None = (
    None if sys.version_info >= (3, 12) else vars(asyncio.tasks)["_current_tasks"]
)
if sys.version_info >= (3, 12):
    _swap = asyncio.tasks._swap_current_task
else:
    _current: dict[AbstractEventLoop, Task[Any]] = vars(asyncio.tasks)["_current_tasks"]

    def _swap(loop: AbstractEventLoop, task: Task[Any] | None) -> Task[Any] | None:
        here: Task[Any] | None = _current.get(loop)
        if task is None:
            _current.pop(loop, None)
        else:
            _current[loop] = task
        return here


@coroutine
def going_on(coro: Any, waits: Any, error: BaseException | None = None) -> Generator[Any, Any, Any]:
    """Go on with what was begun for this task, from where it waits; what it returns. `error`: thrown in meanwhile."""
    if error is not None and waits is not None and waits.cancel(*error.args):
        error = None  # as where a task is cancelled: it gets that from what it waits on
    while True:
        try:
            if error is not None:
                raise error
            yield waits
        except BaseException as thrown:
            error = thrown
        else:
            return (yield from coro)
        raised, error = error, None
        try:
            waits = coro.throw(raised)
        except StopIteration as stop:
            return stop.value
        finally:
            del raised  # its trace has this frame


_GOING_ON: CodeType = going_on.__code__


class Begun(Coroutine[Any, Any, Any]):
    """Code whose first part is carried out where it is begun; a task of its own takes it up in the loop's next turn."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro
        self._waits: Any = None
        self._error: BaseException | None = None
        self._taken_up = False
        self.over = False  #: it returned, and never waited
        self.value: Any = None  #: what it returned

    def begin(self, loop: AbstractEventLoop, task: BranchTask) -> None:
        """Carry out its first part, in the name of the task that is to take it up."""
        try:
            self._waits = act_for(loop, task, self._coro.send, None)
        except StopIteration as stop:
            self.over, self.value = True, stop.value
        except BaseException as error:  # the task's own, and so are those that end a loop
            self._error = error
        del task  # an error's trace has this frame

    def _take_up(self) -> None:
        self._taken_up = True
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its trace has this frame
        if self.over:
            raise StopIteration(self.value)

    def _waited(self) -> Any:
        """What it waits on, which is its task's matter from now on."""
        waits, self._waits = self._waits, None
        return waits

    def send(self, value: Any) -> Any:
        if self._taken_up:
            return self._coro.send(value)
        self._take_up()
        return self._waited()

    def throw(self, *error: Any) -> Any:
        if not self._taken_up:  # cancelled before the loop's next turn: as a task that waits is
            if self.over:  # or by itself, just before it returned
                raise error[0]
            self._take_up()
            waits = self._waited()
            if waits is not None and waits.cancel(*error[0].args):
                return waits
        try:
            return self._coro.throw(*error)
        finally:
            del error  # so here

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coro.__await__()

    @property
    def cr_await(self) -> Any:
        return self._coro


def waiter(task: Task[Any]) -> Future[Any] | None:
    """What a task waits on now; None while it runs or is about to."""
    return task._fut_waiter  # type: ignore[attr-defined,no-any-return]


def foreign(task: Task[Any], waits: Future[Any]) -> Sequence[Future[Any]]:
    """What a task waits for that no run knows of: a raw sleep, a socket, a thread.

    Not locks, queues and joins of asyncio and anyio, which other tasks end; of `gather` and `wait`, what they join.
    """
    if type(waits).__name__ == _GATHERING:
        if getattr(waits, "segue_own", False):
            return ()
        strangers = _strangers(waits._children)  # type: ignore[attr-defined]  # what it joins is kept nowhere else
        waits.segue_own = not strangers  # type: ignore[attr-defined]  # once is enough: they stay the same
        return strangers
    *above, inner = deque(_chain(task.get_coro()), 2) or (None,)
    if inner is None:
        return (waits,)
    code = _code(inner)
    if code.co_filename.endswith(_PASSIVE_FILES):
        by = _code(above[0]) if above else code
        # Of anyio's, all but its locks is ended from outside: by a socket or a process.
        return (waits,) if by.co_filename.endswith(_ANYIO) and by.co_qualname not in _ANYIO_LOCKS else ()
    if code.co_filename.endswith(_ANYIO) and code.co_qualname in _ANYIO_PASSIVE:
        return ()
    if (
        code.co_filename.endswith("asyncio/tasks.py") and code.co_name in _PASSIVE_NAMES
    ):  # a program's is another
        frame = _frame(inner)
        held = {} if frame is None else frame.f_locals
        return _strangers(held.get("fs") or filter(asyncio.isfuture, [held.get("fut")]))
    return (waits,)


def _strangers(futures: Iterable[Any]) -> list[Future[Any]]:
    """Those that are neither calls nor tasks of a run. (A run's tasks are looked at by themselves.)"""
    out: list[Future[Any]] = []
    for future in futures:
        if future.done():
            continue
        if type(future).__name__ == _GATHERING:
            out += _strangers(future._children)
        elif type(future) is Future or (isinstance(future, Task) and not isinstance(future, BranchTask)):
            out.append(future)
    return out


def where(task: Task[Any]) -> str:
    """The line of the author's code at which a task waits, as `file:line in f`."""
    shown: Any = None
    for inner in _chain(task.get_coro()):
        if shown is None or "/asyncio/" not in _code(inner).co_filename:
            shown = inner
    if shown is None:
        return "an unknown place"
    frame = _frame(shown)
    line = frame.f_lineno if frame is not None else _code(shown).co_firstlineno
    return f"{_code(shown).co_filename}:{line} in {_code(shown).co_qualname}"


def authors_line(task: Task[Any]) -> str:
    """The innermost line of the author's at which a task stands, as `file:line`; empty if it has only segue's own."""
    line = ""
    for inner in _chain(task.get_coro()):
        code, frame = _code(inner), _frame(inner)
        if (
            frame is not None
            and "/asyncio/" not in code.co_filename
            and not code.co_filename.startswith(_OWN)
        ):
            line = f"{code.co_filename}:{frame.f_lineno}"
    return line


def let_go(task: Task[Any]) -> None:
    """Give up on a task that refuses to end, so that the loop can close without it."""
    asyncio.tasks._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was said already


def close(loop: AbstractEventLoop, task: Task[Any], waits: Future[Any]) -> None:
    """End a task that waits for that and that nobody awaits: its coroutine is closed in no task, as if let go of."""
    coro: Any = task.get_coro()
    here = asyncio.current_task(loop)
    if here is not None:  # Python 3.12 can't take away what isn't there
        _swap(loop, None)
    try:
        coro.close()
    finally:
        if here is not None:
            _swap(loop, here)
    let_go(task)
    if sys.version_info >= (3, 14):
        asyncio.future_discard_from_awaited_by(waits, task)
    for callback, _ in list(waits._callbacks or ()):  # the task's own isn't known otherwise
        waits.remove_done_callback(callback)


class Bounded(NamedTuple):
    """A wait of `asyncio.wait` with a timeout, or of `wait_for` before Python 3.12."""

    waiter: Future[Any]
    timer: asyncio.TimerHandle
    task: Task[Any]

    def strike(self) -> None:
        """End the wait now."""
        self.timer.cancel()
        if not self.waiter.done():
            self.waiter.set_result(None)


def next_bounded(tasks: Iterable[Task[Any]]) -> Bounded | None:
    """Of the bounded waits of these tasks, the one that ends first."""
    return min(_bounded(tasks), key=lambda one: one.timer.when(), default=None)


def _bounded(tasks: Iterable[Task[Any]]) -> Iterator[Bounded]:
    for task in tasks:
        for coro in _chain(task.get_coro()):
            if _code(coro) in _BOUNDING:
                held = _frame(coro).f_locals  # no other way leads from a task to its timer on every loop
                timer, waiter = held.get("timeout_handle"), held.get("waiter")
                if timer is not None and waiter is not None and not waiter.done():
                    yield Bounded(waiter, timer, task)


def _chain(coro: Any) -> Iterator[Any]:
    """Coroutines and generators from the outermost to the one that really waits."""
    for _ in range(1000):
        if coro is None:
            return
        if _code(coro) is not None:
            yield coro
        elif type(coro).__name__ in _WRAPPERS:
            coro = next((held for held in gc.get_referents(coro) if _code(held) is not None), None)
            continue
        coro = (
            getattr(coro, "cr_await", None)
            or getattr(coro, "gi_yieldfrom", None)
            or getattr(coro, "ag_await", None)
            or _begun_elsewhere(coro)
        )


def _begun_elsewhere(coro: Any) -> Any:
    """What a task goes on with that was begun for it, as long as that is still at its first wait."""
    if _code(coro) is not _GOING_ON:
        return None
    frame = _frame(coro)
    return None if frame is None else frame.f_locals["coro"]


def _code(coro: Any) -> Any:
    return getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None) or getattr(coro, "ag_code", None)


def _frame(coro: Any) -> Any:
    return (
        getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None) or getattr(coro, "ag_frame", None)
    )
