"""A request of an SDK as it is recorded."""

from __future__ import annotations

import re
import urllib.parse
import weakref
from collections import deque
from typing import Any, NamedTuple

import msgspec

from ..core.codec import digest
from ..providers.wire import Request
from .config import SECRET
from .context import Branch, RunContext

#: Ids that SDKs and agents make up, which another life makes up anew.
_MADE_UP = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
#: What grows in a conversation, by protocol.
_GROWING = ("messages", "input", "contents")
#: So many requests of a run are looked at for one that a new one goes on from.
_REMEMBERED = 16


def arguments(
    branch: Branch, method: str, url: str, body: bytes, media: str, asked: Request | None
) -> tuple[bytes, bytes]:
    """A request as it is recorded, and the digest of it with all ids alike that are made up anew each time."""
    shown: dict[str, Any] = {"method": method}
    if asked is not None:
        whole = {"method": method, "url": asked.root + asked.tail, "body": asked.body}
        shown |= {"url": whole["url"], **_shortened(branch, asked.root + asked.tail, asked.body)}
    else:
        parts = urllib.parse.urlsplit(url)
        pairs = [pair for pair in urllib.parse.parse_qsl(parts.query) if not SECRET.search(pair[0])]
        host = parts.netloc.rpartition("@")[2]
        shown["url"] = urllib.parse.urlunsplit(
            (parts.scheme, host, parts.path, urllib.parse.urlencode(pairs), "")
        )
        boundary = re.search(r'boundary="?([^";]+)', media)
        if boundary is not None:
            body = body.replace(boundary[1].encode(), b"")
        if body:
            shown |= {"bytes": len(body), "content": digest(body).hex()}
        whole = shown
    names: dict[bytes, bytes] = {}
    canonical = msgspec.json.encode(whole, order="sorted")
    alike = _MADE_UP.sub(lambda found: names.setdefault(found[0], b"#%d" % len(names)), canonical)
    return msgspec.json.encode(shown), digest(alike)


class _Said(NamedTuple):
    place: str
    url: str
    rest: dict[str, Any]
    said: list[Any]

    def leads_to(self, rest: dict[str, Any], said: list[Any]) -> bool:
        """Whether a request only adds to this one."""
        length = len(self.said)
        return 0 < length < len(said) and self.rest == rest and said[:length] == self.said


_known: weakref.WeakKeyDictionary[RunContext, deque[_Said]] = weakref.WeakKeyDictionary()


def _shortened(branch: Branch, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body without what an earlier request of the run has recorded: a journal grows by what is said."""
    name = next((name for name in _GROWING if isinstance(body.get(name), list)), "")
    if not name:
        return {"body": body}
    rest = {key: value for key, value in body.items() if key != name}
    said: list[Any] = body[name]
    known = _known.get(branch.run)
    if known is None:
        known = _known[branch.run] = deque(maxlen=_REMEMBERED)
    before = next((each for each in reversed(known) if each.url == url and each.leads_to(rest, said)), None)
    known.append(_Said(f"{branch.path}#{branch.n}", url, rest, said))
    if before is None:
        return {"body": body}
    return {"after": before.place, "body": {name: said[len(before.said) :]}}
