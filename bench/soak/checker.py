"""What became of the conversations, by what the provider's ledger says and what was told at the end."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talk import TURNS, last


@dataclass
class Verdict:
    """Conversations by how they ended, lines by what they cost.

    `right`: with the right answer; `wrong`: with another's; `failed`: with an error that was told; `hung`: without a
    word when the time was over; `lost`: without a word, though the program had ended. `again`: lines paid whose
    like had been paid before.
    """

    runs: int
    right: int = 0
    wrong: int = 0
    failed: int = 0
    hung: int = 0
    lost: int = 0
    paid: int = 0
    again: int = 0
    jobs: int = 0
    seconds: float = 0.0
    restarts: int = 0
    errors: tuple[tuple[str, int], ...] = ()
    drawn: dict[str, int] = field(default_factory=dict)

    def words(self, spoils: int | None) -> str:
        """In a few words. What had to be paid again is no fault of anyone's."""
        ends = [
            f"{n} {how}" for how in ("right", "wrong", "failed", "hung", "lost") if (n := getattr(self, how))
        ]
        said = ", ".join(ends) if self.right < self.runs else "all right"
        if self.restarts:
            said += f" (it crashed; started again {self.restarts}×)"
        if self.again:
            said += f"; {self.again} paid again"
            if spoils is not None and self.again <= spoils:
                said += ", as they must"
        return f"{said}; {self.jobs} jobs, {self.seconds:.0f} s"


def judge(
    runs: int, told: Iterable[dict[str, Any]], entries: Iterable[dict[str, Any]], jobs: int, *, ended: bool
) -> Verdict:
    """Count. Of what was told of a conversation the last word counts."""
    verdict = Verdict(runs, jobs=jobs)
    words = {each["number"]: each for each in told}
    errors: Counter[str] = Counter()
    for number in range(runs):
        word = words.get(number)
        if word is None:
            how = "lost" if ended else "hung"
        elif "said" in word:
            how = "right" if word["said"] == last(number) else "wrong"
        else:
            how = "failed"
            errors[word["error"][:80]] += 1
        setattr(verdict, how, getattr(verdict, how) + 1)
    paid = Counter(
        entry["sha256"] for entry in entries if entry["kind"] == "batch" and entry["status"] == 200
    )
    verdict.paid = paid.total()
    verdict.again = verdict.paid - len(paid)
    verdict.errors = tuple(errors.most_common(3))
    assert len(paid) <= TURNS * runs, "bodies that no conversation has"
    return verdict


def judge_folder(runs: int, folder: Path, *, ended: bool) -> Verdict:
    """The same from the files that were left."""
    batches = folder / "sim" / "batches"
    return judge(
        runs,
        _lines(folder / "told.jsonl"),
        _lines(folder / "sim" / "ledger.jsonl"),
        len(list(batches.glob("*.json"))),
        ended=ended,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
