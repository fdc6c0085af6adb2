"""Which leaf of a radix tree goes first, by SGLang's names of its eviction policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .radix_tree import RadixNode

RadixPolicy = Literal["lru", "lfu", "slru", "fifo", "mru", "filo", "priority"]
Rank = tuple[int, int]
"""The leaf with the smallest rank goes first."""

PROTECTED_HITS = 2  # from so many on, slru evicts a leaf after all those with fewer


def rank_of(policy: str, node: RadixNode) -> Rank:
    """Returns a leaf's place in order of eviction.

    Source: SGLang python/sglang/srt/mem_cache/evict_policy.py (behaviour, read 2026-11).
    """
    if policy == "lru":
        return 0, node.accessed_at
    if policy == "lfu":
        return node.num_hits, node.accessed_at
    if policy == "slru":
        return int(node.num_hits >= PROTECTED_HITS), node.accessed_at
    if policy == "fifo":
        return 0, node.created_at
    if policy == "mru":
        return 0, -node.accessed_at
    if policy == "filo":
        return 0, -node.created_at
    return node.priority, node.accessed_at
