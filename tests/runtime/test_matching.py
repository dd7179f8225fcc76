"""Which messages go to which waiting calls: as if all were gone over each time, at the cost of those that are taken."""

from __future__ import annotations

import random
from typing import Any

import pytest

from segue.model.message import Letter, Mail
from segue.model.run import CallRef
from segue.runtime.wake.matching import Matching


def _letter(id: int, name: str, kind: Any = "tell") -> Letter:
    reply = CallRef("from", "", id) if kind == "request" else None
    return Letter(id, Mail("to", "from", id, kind, name, reply=reply))


def _taken(posts: dict[int, Letter], wanted: dict[str, int]) -> list[int]:
    """By going over all of them."""
    out = []
    for letter in posts.values():
        if letter.mail.kind != "request" and wanted.get(letter.mail.name):
            wanted[letter.mail.name] -= 1
            out.append(letter.id)
    return out


@pytest.mark.parametrize("seed", range(200))
def test_as_if_all_were_gone_over(seed: int) -> None:
    draw = random.Random(seed)
    posts: dict[int, Letter] = {}
    wanted: dict[str, int] = {}
    matching, id = Matching(posts), 0
    for _ in range(draw.randrange(1, 30)):
        for _ in range(draw.randrange(6)):
            id += 1
            kind = draw.choice(["tell", "tell", "event", "request"])
            letter = posts[id] = _letter(id, draw.choice("abcd"), kind)
            matching.came(letter)
        for _ in range(draw.randrange(4)):
            name = draw.choice("abcd")
            wanted[name] = wanted.get(name, 0) + 1
            matching.wanted([name])
        if posts and draw.random() < 0.3:  # the code, or an order, takes one out
            del posts[draw.choice(list(posts))]
        expected = _taken(posts, dict(wanted))
        names = {name: count for name, count in wanted.items() if count}
        found = []
        for letter in matching.oldest_first(names):
            found.append(letter.id)
            wanted[letter.mail.name] -= 1
            names[letter.mail.name] -= 1
            if not names[letter.mail.name]:
                del names[letter.mail.name]
        assert found == expected
        for taken in found:
            del posts[taken]


class Counted(dict[int, Letter]):
    looks = 0

    def __contains__(self, id: object) -> bool:
        self.looks += 1
        return super().__contains__(id)

    def __getitem__(self, id: int) -> Letter:
        self.looks += 1
        return super().__getitem__(id)


def test_what_nobody_takes_isnt_passed_over() -> None:
    posts = Counted((id, _letter(id, "other")) for id in range(1000))
    matching = Matching(posts)
    for id in range(1000, 1100):
        posts[id] = _letter(id, "wanted")
        matching.came(posts[id])
        matching.wanted(["wanted"])
        assert [letter.id for letter in matching.oldest_first({"wanted": 1})] == [id]
        del posts[id]
    assert posts.looks < 1000
