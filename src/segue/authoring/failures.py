"""Errors as data and back, so that a replayed call raises what the live one raised."""

from __future__ import annotations

import asyncio
import builtins
import functools
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.codec import decoder, encode
from ..model.entry import Failure
from ..model.errors import NotEncodable, StepFailed
from .context import Parked
from .modules import class_name, class_named
from .trace import attach, hidden, masks_of_keys, text_of, trace_of

if TYPE_CHECKING:
    from ..providers.masking import Mask

_decode = decoder(object)
_decode_group = decoder(tuple[str, list[Failure]])


def to_failure(error: BaseException, *, again: bool = False) -> Failure:
    """An error as data. What builds it again is kept if that gives an equal one, which is tried here.

    Without the keys of providers that this process holds, and those in URLs: a client that the code calls by itself
    may tell its own.
    """
    masks = masks_of_keys()
    failure = _as_failure(error, again, masks)
    message, args = hidden(failure.message, masks), hidden(failure.args.decode(), masks).encode()
    if message == failure.message and args == failure.args:
        return failure
    return msgspec.structs.replace(failure, message=message, args=args)


def _as_failure(error: BaseException, again: bool, masks: Iterable[Mask]) -> Failure:
    trace = trace_of(error, masks)
    cls = type(error)
    name = class_name(cls)
    if isinstance(error, StepFailed):
        return Failure(error.type, error.message, b"", again, trace, _base(cls))
    for parts in (_arguments(error), _fields(error)):
        if parts is None:
            continue
        try:
            args = encode(parts, where=f"{name}.args")
        except NotEncodable:
            continue
        failure = Failure(name, text_of(error), args, again, trace)
        if _build(failure, cls) is not None:
            return failure
    return Failure(name, text_of(error), b"", again, trace, _base(cls))


def own_error(error: BaseException) -> Exception:
    """What code raised, as an error of its own: `StepFailed` for one that would go past all who handle errors.

    Raises it where it isn't the code's own: its task is cancelled, its coroutine closed, or somebody pressed Ctrl-C.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt | Parked) or is_closed(error) or is_cancelled(error):
        try:
            raise error
        finally:
            del error  # its trace has this frame, and so it would hold itself
    return as_step_failed(error)


def is_closed(error: BaseException) -> bool:
    """Whether an error is that of a coroutine that is closed: it runs in no task then."""
    return isinstance(error, GeneratorExit) and _task() is None


def is_cancelled(error: BaseException) -> bool:
    """Whether an error is the cancellation of the running task, and not one that its code made up."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = _task()
    return task is None or task.cancelling() > 0


def _task() -> asyncio.Task[Any] | None:
    return None if asyncio._get_running_loop() is None else asyncio.current_task()


def as_step_failed(error: BaseException) -> StepFailed:
    """An error that isn't an `Exception`, as one that is, by its name. No policy tries it again."""
    cls = type(error)
    failed = StepFailed(class_name(cls), text_of(error))
    failed.__cause__ = error
    failed.__segue_again__ = False  # type: ignore[attr-defined]  # read by the step's retry
    return failed


def to_exception(failure: Failure) -> Exception:
    """The error that a record tells of; `StepFailed` where its class isn't loaded here or can't be built.

    That is of the error's nearest built-in class too: `except OSError` catches what is one. A note says where it was
    raised.
    """
    error = _made(failure)
    attach(error, failure.trace)
    return error


def members_of(failure: Failure) -> list[Failure]:
    """The errors of a recorded group; none of any other error."""
    if not failure.message.endswith((" sub-exception)", " sub-exceptions)")):
        return []
    try:
        members: list[Failure] = _decode_group(failure.args)[1]
    except ValueError:  # it only says so, or couldn't be written whole
        return []
    return members


def _made(failure: Failure) -> Exception:
    found = class_named(failure.type)
    if failure.args and isinstance(found, type) and issubclass(found, BaseException):
        built = _build(failure, found)
        if isinstance(built, Exception):
            return built
    return _step_failed(failure.base)(failure.type, failure.message)


def _base(cls: type[BaseException]) -> str:
    """The nearest built-in class of errors of a class, if it isn't `Exception`."""
    base = next(parent for parent in cls.__mro__ if parent.__module__ == "builtins")
    return base.__name__ if issubclass(base, Exception) and base not in (Exception, ExceptionGroup) else ""


@functools.cache
def _step_failed(base: str) -> type[StepFailed]:
    """`StepFailed` that is of a built-in class too."""
    if not base:
        return StepFailed
    try:
        how = {"__module__": StepFailed.__module__, "__str__": Exception.__str__}
        made = type("StepFailed", (StepFailed, getattr(builtins, base)), how)
        made("module:Class", "message")
    except TypeError:  # such as UnicodeError's, which are made of more than a text
        return StepFailed
    return made


def _arguments(error: BaseException) -> list[object]:
    """What it was made of. An `OSError` drops its file from `args`, and says it all the same.

    Of a group it is its members as data, whose traces are the group's.
    """
    if isinstance(error, ExceptionGroup):
        members = [msgspec.structs.replace(to_failure(member), trace="") for member in error.exceptions]
        return [error.message, members]
    if isinstance(error, OSError) and error.filename is not None and len(error.args) == 2:
        parts = [*error.args, error.filename]
        return parts if error.filename2 is None else [*parts, None, error.filename2]
    return list(error.args)


def _fields(error: BaseException) -> dict[str, object] | None:
    """Constructor arguments found as attributes of the same name."""
    cls: Any = type(error)  # hashable, whatever type checkers read from `object`
    names, held = _parameters(cls), vars(error)
    if names is None or not all(name in held for name in names):
        return None
    return {name: held[name] for name in names}


@functools.lru_cache(maxsize=256)
def _parameters(cls: type[BaseException]) -> tuple[str, ...] | None:
    try:
        return tuple(inspect.signature(cls).parameters)
    except (ValueError, TypeError):
        return None


def _build(failure: Failure, cls: type[BaseException]) -> BaseException | None:
    try:
        if issubclass(cls, ExceptionGroup):
            message, members = _decode_group(failure.args)
            group = cls(message, [to_exception(member) for member in members])
            return group if text_of(group) == failure.message else None
        parts = _decode(failure.args)
        built = cls(**parts) if isinstance(parts, dict) else cls(*parts)
    except Exception:  # a class may refuse for any reason; the caller has a fall-back
        return None
    return built if text_of(built) == failure.message else None
