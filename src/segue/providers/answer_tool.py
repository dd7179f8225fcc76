"""An answer asked for as a call of a tool, where a provider doesn't promise its form."""

from __future__ import annotations

from ..model.chat import Answer

#: The tool's name; a reply that calls it, and no other, is an answer.
NAME = "segue_answer"


def described(answer: Answer) -> str:
    """What the model is told of the tool."""
    return f"Gives the answer, {answer.name}. Call it once, when you are done."
