"""Keeping secrets out of whatever is said about a provider's answers."""

from __future__ import annotations

import json
import re
import urllib.parse

_KEY = re.compile(r"\b(sk|pk|rk)-[A-Za-z0-9_*-]{8,}")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/*-]{8,}=*")
#: In URLs: what stands before the host, of other schemes than HTTP the password alone; what is named a credential.
_USER = re.compile(r"(?i)(\bhttps?://|\b[a-z][a-z0-9+.-]*://[^\s/?#@:'\"]*:)[^\s/?#@'\"]+(?=@)")
_NAMED = re.compile(
    r"(?i)([?&](?:(?:api|access|auth|client|id|refresh|security|subscription|x|amz|goog)[-_]?)*"
    r"(?:key|token|secret|signature|sig|password|passwd|pwd|auth)=)[^&\s#'\"\\]+"
)
_SHOWN = "***"


def in_urls(text: str) -> str:
    """The text without the passwords and keys of URLs in it."""
    if "://" not in text:
        return text
    return _NAMED.sub(rf"\1{_SHOWN}", _USER.sub(rf"\1{_SHOWN}", text))


class Mask:
    """Replaces a secret, and whatever looks like one, by asterisks. Its repr shows nothing."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        forms = {secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/"), urllib.parse.quote(secret, "")}
        exact = sorted((re.escape(form) for form in forms if form), key=len, reverse=True)
        pattern = "|".join(exact)
        if 0 < len(secret) < 8:  # it may be part of a word that means no harm
            pattern = rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])"
        self._secret = re.compile(pattern) if secret else None

    def __call__(self, text: str) -> str:
        """The text without secrets. Mask before you shorten: half a key is no match."""
        return _BEARER.sub(rf"\1 {_SHOWN}", _KEY.sub(_SHOWN, self.its_own(text)))

    def its_own(self, text: str) -> str:
        """The text without the secret, in whatever form; what only looks like one stays."""
        return text if self._secret is None else self._secret.sub(_SHOWN, text)

    def quoted(self, body: bytes, most: int = 300) -> str:
        """What a body begins with, on one line, fit to be shown."""
        text = self(body[: 4 * most + 8192].decode("utf-8", "replace"))
        text = " ".join(text.split())
        return repr(text if len(text) <= most else text[: most - 1] + "…")
