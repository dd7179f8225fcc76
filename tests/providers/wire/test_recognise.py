from __future__ import annotations

import pytest

from segue.providers import wire


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"])
def test_a_lane_finds_the_dialect_of_its_calls(path: str):
    request = wire.recognise("POST", f"https://api.example.com{path}", b'{"model": "m"}')
    assert request is not None
    assert type(wire.dialect_of(request.dialect.to)) is type(request.dialect)
