"""Things that go wrong on command."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from datetime import timedelta
from typing import Any, Literal

import msgspec

from segue.model import checks
from segue.model.errors import InvalidValue

__all__ = ["Fault", "Faults", "LineFaults"]

Effect = Literal["html", "fail", "refuse", "lose", "empty", "delay", "cut", "slow"]
Spoiling = Literal["drop", "rename", "double"]


class Fault(msgspec.Struct, kw_only=True):
    """One thing that goes wrong the next `times` times; `amount` is seconds or chunks."""

    effect: Effect
    on: str
    times: int = 1
    status: int = 500
    amount: float | None = None
    aborts: bool = False


class LineFaults(msgspec.Struct, kw_only=True):
    """What goes wrong with the lines of batches and with their files, and how often that is still to happen.

    A line is named by its custom id; `""` stands for any.
    """

    named: dict[str, Counter[str]] = {}
    failed: list[tuple[str, int]] = []
    half_line: int = 0
    no_output_file: int = 0
    empty_error_file_id: int = 0

    def add(self, what: Spoiling, custom_id: str | None, times: int) -> None:
        """Have it happen to a line."""
        checks.count("times", times)
        self.named.setdefault(what, Counter())[custom_id or ""] += times

    def take(self, what: Spoiling, custom_id: str) -> bool:
        """Whether it happens to this line; one less is left."""
        due = self.named.get(what, Counter())
        for ident in (custom_id, ""):
            if due[ident] > 0:
                due[ident] -= 1
                return True
        return False

    def status(self, custom_id: str) -> int | None:
        """With which status this line is to fail, if it is."""
        for each in self.failed:
            if each[0] in (custom_id, ""):
                self.failed.remove(each)
                return each[1]
        return None


class Faults:
    """Faults to come, each used up as it happens, those asked for first coming first.

    `on` is a part of the path, say `chat` or `batches`; without it any route will do.
    """

    def __init__(self) -> None:
        self._coming: list[Fault] = []
        self.lines = LineFaults()
        self.failed_batches: list[tuple[str, str]] = []
        self.stalled_batches = 0
        self.expired_batches: list[float] = []
        self.late_batches: list[float] = []

    # Calls.

    def reply_html(self, times: int = 1, *, status: int = 502, on: str = "") -> None:
        """An HTML page, as a proxy sends one; nothing was done."""
        _within("status", status, 200, 599)
        self._add(Fault(effect="html", on=on, times=times, status=status))

    def fail(
        self, times: int = 1, *, status: int = 500, retry_after: timedelta | None = None, on: str = ""
    ) -> None:
        """An error in the provider's shape; nothing was done. With 429, give `retry_after`."""
        wait = None if retry_after is None else _wait("retry_after", retry_after)
        _within("status", status, 400, 599)
        self._add(Fault(effect="fail", on=on, times=times, status=status, amount=wait))

    def close_connection(self, times: int = 1, *, on: str = "") -> None:
        """Hang up without an answer; nothing was done."""
        self._add(Fault(effect="refuse", on=on, times=times))

    def lose_reply(self, times: int = 1, *, on: str = "") -> None:
        """Do all that was asked, be paid for it, then hang up without an answer."""
        self._add(Fault(effect="lose", on=on, times=times))

    def empty_reply(self, times: int = 1, *, on: str = "") -> None:
        """Status 200 and not one byte; what was asked was done."""
        self._add(Fault(effect="empty", on=on, times=times))

    def delay(self, by: timedelta, times: int = 1, *, on: str = "") -> None:
        """Wait, on the simulator's clock, before doing anything."""
        self._add(Fault(effect="delay", on=on, times=times, amount=_wait("by", by)))

    # Streams.

    def cut_stream_after(self, chunks: int, times: int = 1, *, abort: bool = False, error: int = 0) -> None:
        """End a stream after so many chunks, as if it were over; with `abort` by hanging up, with `error` by one."""
        checks.count("chunks", chunks, 0)
        if error:
            _within("error", error, 400, 599)
        fault = Fault(effect="cut", on="", times=times, amount=chunks, aborts=abort, status=error)
        self._add(fault)

    def slow_stream(self, by: timedelta, times: int = 1) -> None:
        """Wait, on the simulator's clock, before each chunk of a stream."""
        self._add(Fault(effect="slow", on="", times=times, amount=_wait("by", by)))

    # Lines of batches; without an id any line will do.

    def drop_line(self, custom_id: str | None = None, times: int = 1) -> None:
        """Leave a line out of the files of the next batch that has it, though it is paid."""
        self.lines.add("drop", custom_id, times)

    def wrong_id(self, custom_id: str | None = None, times: int = 1) -> None:
        """Give this line another custom id, one that nobody asked for."""
        self.lines.add("rename", custom_id, times)

    def double_line(self, custom_id: str | None = None, times: int = 1) -> None:
        """Tell of this line twice; it is paid once."""
        self.lines.add("double", custom_id, times)

    def fail_line(self, custom_id: str | None = None, times: int = 1, *, status: int = 500) -> None:
        """End this line with an error, unpaid; 0 is a status too, at OpenAI, that says nothing."""
        checks.count("times", times)
        if status:
            _within("status", status, 400, 599)
        self.lines.failed.extend([(custom_id or "", status)] * times)

    def half_line(self, times: int = 1) -> None:
        """The next output file ends in the middle of its last line."""
        checks.count("times", times)
        self.lines.half_line += times

    def no_output_file(self, times: int = 1) -> None:
        """The next batch to end has no output file, though its lines are paid."""
        checks.count("times", times)
        self.lines.no_output_file += times

    def empty_error_file_id(self, times: int = 1) -> None:
        """The next batch to end without errors has `""` where an id or address would be."""
        checks.count("times", times)
        self.lines.empty_error_file_id += times

    # Batches.

    def fail_batch(self, code: str = "server_error", message: str = "", times: int = 1) -> None:
        """The next batch fails its validation with this code. Anthropic's batches have none."""
        checks.count("times", times)
        told = code, message or f"The simulator was told to fail with {code}"
        self.failed_batches.extend([told] * times)

    def stall_batch(self, times: int = 1) -> None:
        """The next batch to pass its validation gets no work done, and expires."""
        checks.count("times", times)
        self.stalled_batches += times

    def expire_batch(self, times: int = 1, *, done: float = 0.5) -> None:
        """The next batch to pass its validation has this share of its lines done, and expires when it would be over."""
        checks.count("times", times)
        if not 0 <= done <= 1:
            raise InvalidValue("done", "a share from 0 to 1", "it is none", repr(done))
        self.expired_batches.extend([done] * times)

    def late_validation(self, by: timedelta, times: int = 1) -> None:
        """The next batch to be made is validated so much later."""
        checks.count("times", times)
        self.late_batches.extend([_wait("by", by)] * times)

    # For those who carry them out.

    def order(self, text: str) -> None:
        """Do what a text says as a call here: `fail(3, status=429)`, `drop_line`. Times are in seconds.

        Raises `InvalidValue`.
        """
        name, given, named = _read(text)
        method = getattr(self, name)
        known = inspect.signature(method)
        try:
            bound = known.bind(*given, **named)
            for each in ("by", "retry_after"):
                if each in bound.arguments:
                    bound.arguments[each] = timedelta(seconds=bound.arguments[each])
            method(*bound.args, **bound.kwargs)
        except (TypeError, OverflowError, InvalidValue) as problem:
            raise InvalidValue("a fault", f"{name}{_told(known)}", f"{text!r}: {problem}") from None

    def coming(self) -> dict[str, Any]:
        """What is still to happen, as JSON."""
        told: dict[str, Any] = {name: value for name, value in vars(self).items() if name[0] != "_"}
        found: dict[str, Any] = msgspec.to_builtins(told | {"calls": self._coming})
        return found

    def take(self, path: str, *effects: Effect) -> Fault | None:
        """The first fault of these kinds that is due on this route; one less of it is left."""
        for fault in self._coming:
            if fault.effect in effects and fault.on in path:
                fault.times -= 1
                if fault.times <= 0:
                    self._coming.remove(fault)
                return fault
        return None

    def _add(self, fault: Fault) -> None:
        checks.count("times", fault.times)
        checks.text("on", fault.on)
        self._coming.append(fault)


_ORDERS = sorted(
    set(dir(Faults)) - {"order", "take", "coming"} - {each for each in dir(Faults) if each[0] == "_"}
)


def _read(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name of a fault and what is said of it; nothing is evaluated but literals."""
    try:
        said = ast.parse(text.strip(), mode="eval").body
        call = said if isinstance(said, ast.Call) else ast.Call(said, [], [])
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        given = [ast.literal_eval(each) for each in call.args]
        named = {each.arg or "": ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError) as problem:
        raise InvalidValue("a fault", "a call such as fail(3, status=429)", f"{text!r}: {problem}") from None
    if name not in _ORDERS:
        raise InvalidValue("a fault", f"one of {', '.join(_ORDERS)}", repr(text))
    return name, given, named


def _within(where: str, status: int, least: int, most: int) -> None:
    checks.count(where, status, least)
    if status > most:
        raise InvalidValue(where, f"a status from {least} to {most}", "it is more", repr(status))


def _wait(where: str, value: Any) -> float:
    found = checks.seconds(where, value)
    if found < 0:
        raise InvalidValue(where, "a time from 0 on", "it is less", repr(value))
    return found


def _told(known: inspect.Signature) -> str:
    return str(known).removesuffix(" -> None").replace("'", "").replace("timedelta", "seconds")
