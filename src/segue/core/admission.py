"""How much of a provider's quota of enqueued tokens a new job may take.

Providers let so many tokens of a model wait in batch jobs, and most don't say how many. So the quota is found: a job
that is refused halves what is tried, and jobs that pass near the top raise it by an eighth.
"""

from __future__ import annotations

import re

import msgspec

#: A token of a request is taken for so many bytes of its JSON; English has about four.
BYTES_PER_TOKEN = 3
#: Waits after a refusal, in seconds: the first, and the longest.
WAITS = (2.0, 60.0)
#: A line whose estimate is so many times the quota that a provider stated doesn't fit, however wrong the estimate.
BEYOND = 4
_STATED = re.compile(r"[Ll]imit:? ([\d,]+)")


class Quota(msgspec.Struct, frozen=True):
    """What is known of a quota: how many tokens are tried at most, None for as many as come.

    `refusals` came in a row; nothing is sent before `until`. `stated` is what the provider said of it, 0 for nothing.
    """

    limit: int | None = None
    refusals: int = 0
    until: float = 0.0
    stated: int = 0


def estimate(size: int) -> int:
    """Tokens of requests that have so many bytes."""
    return -(-size // BYTES_PER_TOKEN)


def is_quota(told: str) -> bool:
    """Whether a job was refused because too many tokens are enqueued, by its code or in words."""
    return "token_limit_exceeded" in told or "nqueued token" in told


def room(quota: Quota, queued: int, waiting: int) -> int | None:
    """Bytes that a new job may have, while jobs of `queued` bytes are open and `waiting` bytes wait; None for any.

    0: it is better to wait for an open job, since what is left is but a small part of the quota.
    """
    if quota.limit is None:
        return None
    if not queued:
        return max(1, quota.limit * BYTES_PER_TOKEN)
    left = quota.limit - estimate(queued)
    if left <= 0 or left < min(estimate(waiting), quota.limit // 4):
        return 0
    return left * BYTES_PER_TOKEN


def refused(quota: Quota, queued: int, size: int, told: str, now: float) -> Quota:
    """After a job of `size` bytes was refused while others of `queued` bytes were open."""
    stated = _STATED.search(told)
    tried = estimate(queued + size)
    limit = min(tried, quota.limit or tried) // 2
    wait = min(WAITS[0] * 2.0 ** min(quota.refusals, 10), WAITS[1])
    told_limit = int(stated[1].replace(",", "")) if stated else quota.stated
    return Quota(max(1, limit), quota.refusals + 1, now + wait, told_limit)


def accepted(quota: Quota, enqueued: int) -> Quota:
    """After the provider took a job, with which `enqueued` bytes were open."""
    if quota.limit is None:
        return quota
    near = estimate(enqueued) >= quota.limit * 3 // 4
    return Quota(quota.limit + (quota.limit // 8 + 1 if near else 0), stated=quota.stated)


def is_beyond(quota: Quota, size: int) -> bool:
    """Whether a single line can't fit, ever."""
    return bool(quota.stated) and estimate(size) > BEYOND * quota.stated


def at_fault(lines: int, bad: tuple[int, ...]) -> frozenset[int]:
    """Numbers of the lines, from 1, for which a job was rejected; those that it doesn't have are none."""
    return frozenset(number for number in bad if 1 <= number <= lines)
