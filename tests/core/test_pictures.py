"""Pictures count by what their provider counts at most, in every dialect, and not by their bytes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

import segue
from segue.core import pictures
from segue.core.budget import expected
from segue.model.chat import ChatRequest, Message
from segue.providers.registry import make, resolve

DATA = base64.b64encode(bytes(range(256)) * 400)  # 136,536 bytes
ENV = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k", "MISTRAL_API_KEY": "k"}


def body(model: str, *parts: Any) -> bytes:
    """A request as segue makes it."""
    endpoint = resolve(model, ENV)
    provider = make(endpoint, ENV, None)  # type: ignore[arg-type]  # nothing is sent
    request = ChatRequest([Message("user", ["What is it?", *parts])])
    return json.dumps(provider.chat_body(request, endpoint.model)).encode()


def picture() -> segue.File:
    return segue.File(base64.b64decode(DATA), media="image/png")


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("openai:gpt-5-mini", pictures.OPENAI),
        ("openai:gpt-4o-mini", pictures.MINI),
        ("openai-responses:gpt-5-mini", pictures.OPENAI),
        ("anthropic:claude-sonnet-4-5", pictures.ANTHROPIC),
        ("gemini:gemini-2.5-flash", pictures.GEMINI),
        ("mistral:pixtral", pictures.OPENAI),
    ],
)
def test_each_dialect(model: str, most: int) -> None:
    bare, one, two = (body(model, *[picture()] * number) for number in range(3))
    assert pictures.counted(bare) == (0, 0)
    assert pictures.counted(one) == (most, len(DATA))
    assert pictures.counted(two) == (2 * most, 2 * len(DATA))
    assert expected(bare, None)[0] + most <= expected(one, None)[0] <= expected(bare, None)[0] + most + 80


@pytest.mark.parametrize("model", ["openai:gpt-5-mini", "anthropic:claude-sonnet-4-5"])
def test_a_picture_by_its_url_counts_too(model: str) -> None:
    asked = body(model, segue.File("https://example.com/chart.png"))
    assert pictures.counted(asked)[0] in (pictures.OPENAI, pictures.ANTHROPIC)
    assert pictures.counted(asked)[1] == 0


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA.decode()}},
        {"type": "image", "source": {"data": DATA.decode(), "type": "base64", "media_type": "image/png"}},
        {
            "type": "image_url",
            "image_url": {"detail": "high", "url": f"data:image/webp;base64,{DATA.decode()}"},
        },
        {"inline_data": {"mime_type": "image/jpeg", "data": DATA.decode()}},
        {"inlineData": {"data": DATA.decode(), "mimeType": "image/jpeg"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("indent", [None, 2])
def test_as_sdks_write_them(part: dict[str, Any], indent: int | None) -> None:
    tokens, size = pictures.counted(json.dumps({"model": "m", "messages": [part]}, indent=indent).encode())
    assert 0 < tokens <= pictures.ANTHROPIC
    assert size == len(DATA)


def test_documents_and_what_is_written_of_pictures_count_by_their_bytes() -> None:
    pdf = segue.File(base64.b64decode(DATA), media="application/pdf", name="a.pdf")
    for model in ("openai:gpt-5-mini", "anthropic:claude-sonnet-4-5", "gemini:gemini-2.5-flash"):
        assert pictures.counted(body(model, pdf)) == (0, 0)
    talk = (
        'It says {"type": "image"} and "data:image/png;base64,AAAA" and {"mimeType":"image/png","data":"x"}'
    )
    assert pictures.counted(body("openai:gpt-5-mini", talk)) == (0, 0)
