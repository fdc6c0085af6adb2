"""The orders in which SGLang looks at its waiting queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...request import ContentRun
from ..live_request import LiveRequest

# Above so many waiting requests, matching all of them costs more than the order brings.
MOST_MATCHED = 128
# A request with so few cached tokens waits for an earlier one that is to compute the same first tokens.
SHARED_TOKENS = 32

CachedTokens = Callable[[LiveRequest], int]


def in_order(policy: str, waiting: Sequence[LiveRequest], cached_tokens: CachedTokens) -> list[LiveRequest]:
    """Returns the queue in the order of `policy`; equals stay as they are.

    Source: SGLang python/sglang/srt/managers/schedule_policy.py at 00550cd (behaviour, read 2026-11).
    """
    if policy == "lof":
        return sorted(waiting, key=lambda live: -live.num_output_tokens)
    if policy == "fcfs" or (policy == "lpm" and len(waiting) > MOST_MATCHED):
        return list(waiting)
    cached = {live: cached_tokens(live) for live in waiting}
    late = _to_be_cached(cached)
    if policy == "lpm":
        return sorted(waiting, key=lambda live: (live in late, -cached[live]))
    return sorted(waiting, key=lambda live: (live in late, live.num_tokens - cached[live]))


def _to_be_cached(cached: dict[LiveRequest, int]) -> set[LiveRequest]:
    """Returns who would compute what an earlier waiting request computes first."""
    seen: set[tuple[tuple[int, int], ...]] = set()
    late: set[LiveRequest] = set()
    for live, num_cached in cached.items():
        if num_cached > SHARED_TOKENS or live.request.content is None:
            continue
        head = _head(live.request.content, SHARED_TOKENS)
        if head in seen:
            late.add(live)
        elif head:
            seen.add(head)
    return late


def _head(content: Iterable[ContentRun], num_tokens: int) -> tuple[tuple[int, int], ...]:
    """Returns the runs of the first `num_tokens` tokens, nothing if there are fewer."""
    head: list[tuple[int, int]] = []
    for content_id, run_tokens in content:
        head.append((content_id, min(run_tokens, num_tokens)))
        num_tokens -= run_tokens
        if num_tokens <= 0:
            return tuple(head)
    return ()
