"""What the demo claims, checked against what the provider and the store have written down."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass
class Claim:
    """Something that either holds or doesn't, and the figures that show it."""

    text: str
    holds: bool
    shown: str


def each_line_once(ledger: Iterable[Mapping[str, Any]], recorded: int) -> Claim:
    """The provider was paid for each batch line once, and for no line that the journals don't know."""
    paid = Counter(
        entry["custom_id"] for entry in ledger if entry["kind"] == "batch" and entry["status"] == 200
    )
    twice = sum(times > 1 for times in paid.values())
    holds = not twice and len(paid) == recorded > 0
    return Claim(
        "Nothing was paid twice, nothing was lost",
        holds,
        f"{sum(paid.values()):,} lines paid, {twice} of them twice; {recorded:,} answers in the journals",
    )


def same_journals(pairs: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]]) -> Claim:
    """Live and batch wrote the same: call by call the same place, question and answer."""
    calls = equal = 0
    for live, batch in pairs:
        ours, theirs = _plain(live), _plain(batch)
        calls += len(ours.keys() | theirs.keys())
        equal += sum(ours.get(place) == theirs.get(place) for place in ours.keys() | theirs.keys())
    return Claim(
        "Live and batch write one journal",
        calls == equal > 0,
        f"{len(pairs)} remarks run both ways: {equal} of {calls} calls equal, by place, question and answer",
    )


def _plain(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A journal's calls by place, without times, ids and what a server tells of itself."""
    calls = {}
    for call in lines:
        if "path" in call:
            value = call.get("value")
            if call["kind"] == "generate" and value is not None:
                choice = value["choices"][0]
                value = [
                    choice["message"]["content"],
                    choice["finish_reason"],
                    value["usage"]["prompt_tokens"],
                ]
            calls[f"{call['path']}#{call['n']}"] = [
                call["kind"],
                call["name"],
                call["digest"],
                call["args"],
                value,
            ]
    return calls


def every_row_answered(out: Sequence[Mapping[str, Any]], rows: Sequence[str]) -> Claim:
    """One output line a row, in the rows' order, none failed."""
    good = sum(not line.get("error") and line["input"] == row for line, row in zip(out, rows, strict=False))
    return Claim(
        "Every row is there",
        good == len(rows) == len(out),
        f"{good:,} of {len(rows):,} rows done, in their order",
    )


@dataclass
class Agreement:
    """How often the model felt as people did, and how often one would who always said the commoner thing."""

    share: float
    baseline: float


def agreement(out: Sequence[Mapping[str, Any]], ratings: Sequence[float]) -> Agreement:
    """The model's `sentiment` against the sign of people's mean rating."""
    liked = [rating > 0 for rating in ratings]
    said = [line["value"]["label"]["sentiment"] == "positive" for line in out if not line.get("error")]
    share = sum(ours == theirs for ours, theirs in zip(said, liked, strict=True)) / len(liked)
    return Agreement(share, max(sum(liked), len(liked) - sum(liked)) / len(liked))


def read_lines(data: bytes) -> list[Any]:
    """JSON lines; a last one that isn't whole is left out."""
    return [msgspec.json.decode(line) for line in data.split(b"\n")[:-1]]
