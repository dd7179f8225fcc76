"""What is dropped of a conversation: whole turns and exchanges, seldom, and the same until there is too much again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.core.upkeep import HEADING, drops, tokens_of
from segue.model.chat import File, Message, ToolCall

#: A turn: how long its question is, then how many calls each of its exchanges makes.
turns = st.lists(
    st.tuples(st.integers(0, 400), st.lists(st.integers(1, 3), max_size=5)), min_size=1, max_size=25
)


def talk(plan: list[tuple[int, list[int]]]) -> list[Message]:
    out = [Message("system", "be brief")]
    for number, (length, exchanges) in enumerate(plan):
        out.append(Message("user", f"{number}" + "x" * length))
        for turn, calls in enumerate(exchanges):
            made = [ToolCall(f"{number}-{turn}-{call}", "look", "{}") for call in range(calls)]
            out.append(Message("assistant", "", made))
            out += [Message("tool", "y" * 50, call=call.id) for call in made]
        out.append(Message("assistant", "done"))
    return out


def left_of(messages: list[Message], pinned: list[int], most: int = 400, keep: int = 200) -> list[Message]:
    gone = {number for group in drops(messages, pinned, 0, most, keep) for number in group}
    return [message for number, message in enumerate(messages) if number not in gone]


@given(turns)
def test_what_is_left_is_a_conversation(plan: list[tuple[int, list[int]]]) -> None:
    messages = talk(plan)
    question = max(n for n, message in enumerate(messages) if message.role == "user")
    left = left_of(messages, [question])
    assert left[0].role == "system"
    assert left[1].role == "user"
    assert messages[question] in left
    assert left[-1] == messages[-1]
    asked = [call.id for message in left for call in message.tool_calls]
    assert asked == [message.call for message in left if message.role == "tool"]


@given(turns)
def test_what_was_dropped_stays_so_while_the_conversation_grows(plan: list[tuple[int, list[int]]]) -> None:
    messages = talk(plan)
    dropped: list[list[int]] = []
    for end in range(2, len(messages) + 1):
        if end < len(messages) and messages[end].role == "tool":
            continue
        now = drops(messages[:end], [], 0, 400, 200)
        assert now[: len(dropped)] == dropped
        dropped = now


@given(turns)
def test_it_is_seldom_and_much(plan: list[tuple[int, list[int]]]) -> None:
    messages = talk([(length, []) for length, _ in plan])
    groups = drops(messages, [], 0, 400, 200)
    for group in groups[1:]:  # after one cut there is room for 200 tokens before the next
        assert sum(tokens_of(messages[number]) for number in group) >= 80


def test_a_long_turn_loses_its_oldest_exchanges() -> None:
    messages = talk([(10, [1] * 40)])
    left = left_of(messages, [1])
    assert left[:2] == messages[:2]
    assert left[-1] == messages[-1]
    assert sum(map(tokens_of, left)) <= 400
    assert len(left) < len(messages) / 2


def test_what_is_short_is_whole() -> None:
    assert drops(talk([(10, [1])] * 3), [], 0, 400, 200) == []


def test_one_message_that_is_too_long_stays() -> None:
    messages = [Message("user", "x" * 10_000)]
    assert drops(messages, [0], 0, 400, 200) == []


def test_an_earlier_summary_goes_into_the_next() -> None:
    messages = [Message("user", HEADING + "z" * 900), *talk([(400, [1]), (400, [1])])[1:]]
    (dropped,) = drops(messages, [], 0, 400, 200)
    assert dropped[0] == 0


def test_files_and_other_scripts_count() -> None:
    assert tokens_of(Message("user", ["look", File(b"x", media="image/png")])) > 1000
    assert tokens_of(Message("user", "日本語" * 100)) > 200
