"""Lines of server-sent events as events."""

from __future__ import annotations

from .dialect import StreamError


class Events:
    """`line` gives an event's data when it is whole, `end` what no empty line has ended."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._kind = b""

    def line(self, line: bytes) -> bytes | None:
        """Take a line, without its end. Raises `StreamError` for an `error` event."""
        if not line:
            return self.end()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name.removeprefix(b"\xef\xbb\xbf"):
            case b"data":
                self._data.append(value)
            case b"event":
                self._kind = value.strip()
            case b"error":  # a field of llama.cpp's own
                raise StreamError(value)
        return None

    def end(self) -> bytes | None:
        """The data of the event that ends here."""
        data, self._data = b"\n".join(self._data), []
        kind, self._kind = self._kind, b""
        if data and kind == b"error":
            raise StreamError(data)
        return data or None
