"""Triage of customers' remarks: a model labels them, a model answers, a person is asked where it is urgent."""

from dataclasses import dataclass
from typing import Literal

import segue

LABELS = """\
Review: works perfectly, even after two years.
Label: {"sentiment": "positive", "topic": "quality", "urgent": false}

Review: it froze twice, and support hung up on me. i want my money back now!
Label: {"sentiment": "negative", "topic": "service", "urgent": true}

Review: great value, i recommend it to everyone.
Label: {"sentiment": "positive", "topic": "price", "urgent": false}

Review: the battery dies within an hour.
Label: {"sentiment": "negative", "topic": "quality", "urgent": false}

Review: the menu is hard to read.
Label: {"sentiment": "negative", "topic": "quality", "urgent": false}

Review: do not buy it, mine caught fire after a week!
Label: {"sentiment": "negative", "topic": "quality", "urgent": true}
"""

ANSWERS = """\
Review: the screen cracked after a week.
Answer: We are sorry about the cracked screen; a new one is on its way.

Review: the manual is useless.
Answer: Thank you for telling us; we are rewriting the manual.

Review: it stopped working, and nobody answers the phone.
Answer: We are sorry that nobody answered; we will call you today.
"""


@dataclass
class Label:
    sentiment: Literal["negative", "positive"]
    topic: Literal["quality", "price", "service", "other"]
    urgent: bool


@dataclass
class Triaged:
    label: Label
    outcome: Literal["filed", "answered", "escalated"]
    answer: str = ""


@segue.step  # recorded whole: done once, whatever crashes
async def desk(topic: str) -> str:
    return {"quality": "Repairs", "price": "Refunds", "service": "Hotline"}.get(topic, "Customer care")


@segue.flow  # recorded call by call: replayed, never paid twice
async def triage(remark: str) -> Triaged:
    label = await segue.generate(f"{LABELS}\nReview: {remark}\nLabel:", returns=Label)
    if label.sentiment == "positive":
        return Triaged(label, "filed")
    draft = await segue.generate(f"{ANSWERS}\nReview: {remark}\nAnswer:", returns=segue.Reply[str])
    answer = f"{draft.text.strip()} {await desk(label.topic)}"  # a draft that was cut off will do
    if label.urgent and not await segue.ask("Send this?", show=[remark, answer], returns=bool):
        return Triaged(label, "escalated", answer)
    return Triaged(label, "answered", answer)
