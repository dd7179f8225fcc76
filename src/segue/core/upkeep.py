"""What of a conversation is dropped when it grows too long: a function of its messages alone.

The messages are gone through from the first, as they came: whenever they are too many, the oldest are dropped, down to
a lower mark. So a conversation that has grown at its end has the same dropped as before, until it is too long again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..model.chat import ChatRequest, File, Message

#: Bytes of text that count as a token: a little less than English has, so that estimates are high rather than low.
BYTES = 3.5
#: What a message costs beside its text, in tokens.
EACH = 4
#: What a picture or another file counts as, in tokens: providers count by size and kind, which isn't known here.
FILE = 1500
#: What a summary begins with.
HEADING = "Summary of the conversation before this:\n"


def tokens_of(message: Message) -> int:
    """An estimate."""
    parts = [message.content] if isinstance(message.content, str) else message.content
    size = sum(len(part.encode()) for part in parts if isinstance(part, str))
    size += sum(len(call.name) + len(call.arguments.encode()) for call in message.tool_calls)
    if message.opaque:
        size += len(msgspec.json.encode(message.opaque))
    return EACH + int(size / BYTES) + FILE * sum(isinstance(part, File) for part in parts)


def fixed_tokens(request: ChatRequest) -> int:
    """An estimate of what goes with every turn: tools, and the form of the answer."""
    size = len(msgspec.json.encode(request.tools)) if request.tools else 0
    return int((size + (len(msgspec.json.encode(request.answer)) if request.answer else 0)) / BYTES)


def is_summary(message: Message) -> bool:
    return message.role == "user" and isinstance(message.content, str) and message.content.startswith(HEADING)


def drops(
    messages: Sequence[Message], pinned: Sequence[int], fixed: int, most: int, keep: int
) -> list[list[int]]:
    """The numbers of the messages that are dropped, a list for each time that there were more than `most` tokens.

    Then as many go as bring them to `keep`. Those that are `pinned` stay, and system messages at the beginning.
    """
    first = next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))
    sizes = [tokens_of(message) for message in messages]
    now = fixed + sum(sizes[:first])
    kept: list[int] = []
    groups: list[list[int]] = []
    for number in range(first, len(messages)):
        kept.append(number)
        now += sizes[number]
        whole = number + 1 == len(messages) or messages[number + 1].role != "tool"
        if now <= most or not whole:
            continue
        dropped: list[int] = []
        for unit in _units(messages, kept, frozenset(pinned)):
            if now <= keep:
                break
            dropped += unit
            now -= sum(sizes[each] for each in unit)
        if dropped:
            groups.append(dropped)
            gone = set(dropped)
            kept = [each for each in kept if each not in gone]
    return groups


def _units(messages: Sequence[Message], kept: Sequence[int], pinned: frozenset[int]) -> list[list[int]]:
    """What may be dropped, in that order, each whole: old turns, then old exchanges of a turn that has to stay."""
    turns: list[list[int]] = []
    for number in kept:
        before = messages[turns[-1][-1]] if turns else None
        begins = messages[number].role == "user" and (
            before is None or before.role != "user" or is_summary(before)
        )
        if begins or before is None:
            turns.append([])
        turns[-1].append(number)
    units: list[list[int]] = []
    for turn in turns:
        newest = turn is turns[-1]
        if not newest and pinned.isdisjoint(turn):
            units.append(turn)
            continue
        exchanges: list[list[int]] = []
        for number in turn:
            if messages[number].role == "assistant":
                exchanges.append([number])
            elif messages[number].role == "tool" and exchanges:
                exchanges[-1].append(number)
        units += exchanges[:-1] if newest else exchanges
    return units


def transcript(messages: Sequence[Message]) -> str:
    """Messages as a text to be read by a model."""
    return "\n\n".join(map(_told, messages))


def _told(message: Message) -> str:
    parts = [message.content] if isinstance(message.content, str) else message.content
    texts = [part if isinstance(part, str) else f"[{part.name or part.url or part.media}]" for part in parts]
    texts += [f"(calls {call.name}: {call.arguments})" for call in message.tool_calls]
    return f"{message.role}: {' '.join(text for text in texts if text)}"
