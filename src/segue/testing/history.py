"""A checker of message histories: each handled exactly once, by whom it was sent to, in order per sender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Of a message: the other side's name, and a number that is the sender's own for it.
Message = tuple[str, int]


def faults(sent: Mapping[str, Sequence[Message]], handled: Mapping[str, Sequence[Message]]) -> list[str]:
    """What is wrong with a history; empty if nothing is.

    `sent`: by sender, to whom and with what number, in order. `handled`: by recipient, from whom and with what number,
    in the order in which it handled them. Linear in the number of messages.
    """
    to: dict[tuple[str, int], str] = {}
    place: dict[tuple[str, int], int] = {}
    out: list[str] = []
    for sender, messages in sent.items():
        for at, (recipient, number) in enumerate(messages):
            if (sender, number) in to:
                out.append(f"{sender} sent two messages with number {number}")
            to[sender, number], place[sender, number] = recipient, at
    seen: set[tuple[str, int]] = set()
    for recipient, messages in handled.items():
        last: dict[str, tuple[int, int]] = {}  # by sender: the place and number of its latest one here
        for message in messages:
            sender, number = message
            if message not in to:
                out.append(f"{recipient} handled {number} of {sender}, which never was sent")
                continue
            if to[message] != recipient:
                out.append(f"{recipient} handled {number} of {sender}, which was sent to {to[message]}")
                continue
            if message in seen:
                out.append(f"{recipient} handled {number} of {sender} more than once")
                continue
            seen.add(message)
            before = last.get(sender, (-1, -1))
            if place[message] < before[0]:
                out.append(
                    f"{recipient} handled {number} of {sender} after {before[1]}, which was sent later"
                )
            last[sender] = max(before, (place[message], number))
    out += [f"{number} of {sender} to {to[sender, number]} was lost" for sender, number in to.keys() - seen]
    return out
