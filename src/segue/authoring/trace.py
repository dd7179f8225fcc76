"""Where an error was raised, in few lines of text, for whoever looks at a run that failed."""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..providers.masking import Mask

#: The most that is kept of one error, in characters, and of one of its lines.
MOST: Final = 2000
WIDTH: Final = 160
#: Of a deep stack, the outermost and the innermost frames are kept.
OUTER, INNER = 4, 8
#: So many causes, and errors of a group, are told of.
CAUSES, MEMBERS = 2, 3
#: What a note begins with that tells of an error's record.
TITLE: Final = "It was raised in\n"

#: Frames of segue and of Python's own modules say nothing of the author's code.
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PYTHON = os.path.dirname(os.path.dirname(os.path.abspath(asyncio.__file__))) + os.sep
#: Below it, where what is installed may be.
_INSTALLED = ("site-packages", "dist-packages")


def trace_of(error: BaseException, masks: Iterable[Mask]) -> str:
    """`FILE:LINE, in FUNCTION` and the code there, the innermost last; masked, and at most `MOST` characters."""
    lines = list(_lines(error, CAUSES))
    if not lines:
        return ""
    text = _cut(_masked("\n".join(lines), masks))
    if len(text) <= MOST:
        return text
    return f"{text[: MOST // 4]}\n  …\n{text[-(MOST * 3 // 4 - 8) :].partition(chr(10))[2]}"


def masks_of_keys() -> list[Mask]:
    """Of the keys of providers that this process has."""
    from ..providers.registry import masks

    return masks(os.environ)


def hidden(text: str, masks: Iterable[Mask]) -> str:
    """Without the keys of these, and those in URLs."""
    from ..providers.masking import in_urls  # which loads the providers

    for mask in masks:
        text = mask.its_own(text)
    return in_urls(text)


def traceback_of(error: BaseException) -> str:
    """The whole of it, masked as what is recorded."""
    return _masked("".join(traceback.format_exception(error)), masks_of_keys())


def tells_secrets(error: BaseException) -> bool:
    """Whether an error, or what is behind it, says what isn't recorded of it."""
    masks = masks_of_keys()
    seen: set[int] = set()
    more: list[BaseException | None] = [error]
    while more:
        one = more.pop()
        if one is None or id(one) in seen:
            continue
        text = text_of(one)
        if hidden(text, masks) != text:
            return True
        seen.add(id(one))
        more += [
            one.__cause__,
            one.__context__,
            *(one.exceptions if isinstance(one, BaseExceptionGroup) else ()),
        ]
    return False


def log_error(log: logging.Logger, error: BaseException, text: str, *args: object) -> None:
    """Log what failed, with where it was raised, and without secrets that it tells."""
    if tells_secrets(error):
        log.error(f"{text}\n%s", *args, traceback_of(error).rstrip(), stacklevel=2)
    else:
        log.error(text, *args, exc_info=error, stacklevel=2)


def _masked(text: str, masks: Iterable[Mask]) -> str:
    from ..providers.masking import Mask

    return hidden(Mask("")(text), masks)


def text_of(error: BaseException) -> str:
    """An error's text, in what UTF-8 can hold."""
    try:
        text = str(error)
    except Exception as problem:  # its own code
        return f"(no text: its __str__ raised {type(problem).__name__})"
    return text.encode("utf-8", "backslashreplace").decode()


def attach(error: BaseException, trace: str) -> None:
    """Have an error that is made from its record tell where it was raised."""
    error.__segue_trace__ = trace  # type: ignore[attr-defined]  # read by `trace_of`
    if trace:
        error.add_note(f"{TITLE}{trace}")


def _lines(error: BaseException, causes: int) -> Iterator[str]:
    yield from _frames(error)
    recorded = getattr(error, "__segue_trace__", None)
    if recorded:
        yield recorded
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, str) and not note.startswith(TITLE):
            yield f"  {note}"
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions[:MEMBERS]:
            yield f"  of which {_said(member)}"
            yield from _indented(_lines(member, causes))
    if (
        error.__cause__ is not None and recorded is None and causes
    ):  # a recorded one's cause is of this life only
        below = list(_lines(error.__cause__, causes - 1))
        if below:
            yield f"  because of {_said(error.__cause__)}"
            yield from _indented(below)


def _frames(error: BaseException) -> Iterator[str]:
    stack = traceback.walk_tb(error.__traceback__)
    theirs = [(frame, line) for frame, line in stack if not _is_beside(frame.f_code.co_filename)]
    frames = traceback.StackSummary.extract(theirs) if theirs else ()  # which looks into files
    for number, frame in enumerate(frames):
        if number == OUTER and len(frames) > OUTER + INNER:
            yield f"  … {len(frames) - OUTER - INNER} more"
        if number < OUTER or number >= len(frames) - INNER:
            yield f"  {_short(frame.filename)}:{frame.lineno}, in {frame.name}"
            if frame.line:
                yield f"    {frame.line}"


def _is_beside(file: str) -> bool:
    """Whether that is segue's own, or Python's."""
    return file.startswith(_OURS) or (
        file.startswith(_PYTHON) and not any(map(file.__contains__, _INSTALLED))
    )


def _short(path: str) -> str:
    """As seen from the working directory, if it is below it."""
    try:
        return path.removeprefix(os.getcwd() + os.sep)
    except OSError:  # it is gone
        return path


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {part}" for line in lines for part in line.split("\n"))


def _cut(text: str) -> str:
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in text.split("\n"))
