"""Tools that an assistant may be given: typed functions. Write one more, and `/tools NAME` plugs it in."""

from pathlib import Path
from typing import Any

import segue


@segue.step
def look(pattern: str) -> list[str]:
    """Files here whose names fit a pattern such as *.txt."""
    return sorted(str(path) for path in Path().glob(pattern))


@segue.step(effect="at-most-once")  # an e-mail that may have gone out isn't sent again
def send(to: str, text: str) -> str:
    """Send an e-mail."""
    with Path("outbox.txt").open("a") as outbox:
        outbox.write(f"{to}: {text}\n")
    return "sent"


TOOLS: dict[str, Any] = {
    "look": look,
    "send": segue.tool(send, approve=True),  # a person says yes first: `segue runs`, `segue answer`
}
