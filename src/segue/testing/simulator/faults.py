"""Things that go wrong on command."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

__all__ = ["Fault", "Faults", "LineFaults"]

Effect = Literal["html", "fail", "refuse", "lose", "empty", "delay", "cut", "slow"]


class Fault(msgspec.Struct, kw_only=True):
    """One thing that goes wrong the next `times` times; `amount` is seconds or chunks."""

    effect: Effect
    on: str
    times: int = 1
    status: int = 500
    amount: float | None = None
    aborts: bool = False


class LineFaults(msgspec.Struct, kw_only=True):
    """What goes wrong with the files of batches; the flags hold for the next batch that ends."""

    dropped: set[str] = msgspec.field(default_factory=set)
    renamed: set[str] = msgspec.field(default_factory=set)
    doubled: set[str] = msgspec.field(default_factory=set)
    half_line: bool = False
    no_output_file: bool = False
    empty_error_file_id: bool = False


class Faults:
    """Faults to come, each used up as it happens, those asked for first coming first.

    `on` is a part of the path, say `chat` or `batches`; without it any route will do.
    """

    def __init__(self) -> None:
        self._coming: list[Fault] = []
        self.lines = LineFaults()
        self.failed_batches: list[tuple[str, str]] = []
        self.stalled_batches = 0

    def reply_html(self, times: int = 1, *, status: int = 502, on: str = "") -> None:
        """An HTML page, as a proxy sends one; nothing was done."""
        self._add(Fault(effect="html", on=on, times=times, status=status))

    def reply_html_once(self, *, on: str = "") -> None:
        """`reply_html`, once."""
        self.reply_html(on=on)

    def fail(
        self, times: int = 1, *, status: int = 500, retry_after: timedelta | None = None, on: str = ""
    ) -> None:
        """An error in the provider's shape; nothing was done. With 429, give `retry_after`."""
        seconds = retry_after.total_seconds() if retry_after is not None else None
        self._add(Fault(effect="fail", on=on, times=times, status=status, amount=seconds))

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
        self._add(Fault(effect="delay", on=on, times=times, amount=by.total_seconds()))

    def cut_stream_after(self, chunks: int, times: int = 1, *, abort: bool = False, error: int = 0) -> None:
        """End a stream after so many chunks, as if it were over; with `abort` by hanging up, with `error` by one."""
        fault = Fault(effect="cut", on="", times=times, amount=chunks, aborts=abort, status=error)
        self._add(fault)

    def slow_stream(self, by: timedelta, times: int = 1) -> None:
        """Wait, on the simulator's clock, before each chunk of a stream."""
        self._add(Fault(effect="slow", on="", times=times, amount=by.total_seconds()))

    def drop_line(self, custom_id: str) -> None:
        """Leave a line out of the files of the next batch that has it, though it is paid."""
        self.lines.dropped.add(custom_id)

    def wrong_id(self, custom_id: str) -> None:
        """Give this line another custom id, one that nobody asked for."""
        self.lines.renamed.add(custom_id)

    def double_line(self, custom_id: str) -> None:
        """Tell of this line twice; it is paid once."""
        self.lines.doubled.add(custom_id)

    def half_line(self) -> None:
        """The next output file ends in the middle of its last line."""
        self.lines.half_line = True

    def no_output_file(self) -> None:
        """The next batch to end has no output file, though its lines are paid."""
        self.lines.no_output_file = True

    def empty_error_file_id(self) -> None:
        """The next batch to end without errors has `""` where an id or address would be."""
        self.lines.empty_error_file_id = True

    def fail_batch(self, code: str, message: str = "") -> None:
        """The next batch fails its validation with this code. Anthropic's batches have none."""
        self.failed_batches.append((code, message or f"The simulator was told to fail with {code}"))

    def stall_batch(self, times: int = 1) -> None:
        """The next batch to pass its validation gets no work done, and expires."""
        self.stalled_batches += times

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
        self._coming.append(fault)
