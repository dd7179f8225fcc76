"""Pictures in a request body: how many, their bytes, and what they may count. Pure.

A provider scales a picture down and counts it by its size in pixels, never by its bytes. So each counts as much as the
largest may, by what the providers publish of their models (2026):

- Anthropic: a token for each 28 × 28 pixels of at most 2576 on the long edge, so up to 4,784; older models stay below
  1,600 (platform.claude.com/docs/en/build-with-claude/vision).
- OpenAI: at most 1,536 patches of 32 × 32 pixels, times up to 2.46, or 85 and 170 for each of at most 8 tiles; of
  gpt-4o-mini 2,833 and 5,667 (platform.openai.com/docs/guides/images-vision). Servers that speak its protocol count
  likewise.
- Gemini: up to 2,240 by resolution, or 258 for each tile of 768 × 768 pixels, of which 10 are taken for the most
  (ai.google.dev/gemini-api/docs/tokens).

Documents and sound count by their bytes: how many pages or seconds they have can't be told from outside.
"""

from __future__ import annotations

import re

#: What a picture may count, in tokens, by what marks one in a body.
ANTHROPIC, OPENAI, GEMINI = 4_800, 3_800, 2_600
#: A picture of this model counts thirty times as much as of its like; its price is as much lower.
MINI = 48_200

_MARKS = re.compile(
    rb'"type"\s*:\s*"(?:(image)|image_url|input_image)"|("mime_?[tT]ype"\s*:\s*"image/)|"media"\s*:\s*"image/'
)
_DATA = re.compile(rb'"data(:image/[\w.+-]+;base64,|"\s*:\s*")')
_MEDIA = re.compile(rb'"(?:media_type|mime_?[tT]ype|media)"\s*:\s*"image/')
_MINI = re.compile(rb'"model"\s*:\s*"[^"]*gpt-4o-mini')
#: So near to its data stands of what type a picture is.
_NEAR = 200


def counted(body: bytes) -> tuple[int, int]:
    """The tokens of all pictures in a body at most, and the bytes that they take there."""
    tokens = 0
    for mark in _MARKS.finditer(body):
        tokens += ANTHROPIC if mark[1] else GEMINI if mark[2] else _openai(body)
    return tokens, sum(map(len, _data(body))) if tokens else 0


def _openai(body: bytes) -> int:
    return MINI if _MINI.search(body) else OPENAI


def _data(body: bytes) -> list[bytes]:
    """The pictures' contents, in base64."""
    found: list[bytes] = []
    for start in _DATA.finditer(body):
        end = body.find(b'"', start.end())
        if end > 0 and (start[1].startswith(b":") or _is_picture(body, start.start(), end)):
            found.append(body[start.end() : end])
    return found


def _is_picture(body: bytes, start: int, end: int) -> bool:
    """Whether the object with that data says that it is one."""
    before = body[max(0, start - _NEAR) : start].rpartition(b"{")[2]
    after = body[end : end + _NEAR].partition(b"}")[0]
    return bool(_MEDIA.search(before) or _MEDIA.search(after))
