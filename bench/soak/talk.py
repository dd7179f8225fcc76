"""What every side needs: how a conversation goes, and where is told how it ended. Only the standard library."""

import json
from pathlib import Path

TURNS = 3


def first(number: int) -> str:
    """The first message; each later one is the answer before it. The simulator says `You said: …`."""
    return f"row {number}."


def last(number: int) -> str:
    """The answer that a conversation has to end with."""
    return "You said: " * TURNS + first(number)


class Told:
    """A line a conversation that ended, written at once: it is there whatever becomes of the process."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "told.jsonl"

    def end(self, number: int, said: str | None, error: BaseException | None = None) -> None:
        how = {"said": said} if error is None else {"error": f"{type(error).__name__}: {error}"[:300]}
        with self._path.open("a") as file:
            file.write(json.dumps({"number": number, **how}) + "\n")
