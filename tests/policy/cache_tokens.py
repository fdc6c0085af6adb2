"""What literal caches work on: tokens with a name each, cut into blocks.

The caches in `radix_cache_reference.py`, `trtllm_cache_reference.py` and `ksana_cache_reference.py` keep
every block as an object with its tokens, and every search is a walk. They are slow and literal on purpose,
written from the engines' behaviour alone; nothing is shared with `simllm.sim.policy.kv`.
"""

from __future__ import annotations

Token = tuple[object, int]
Page = tuple[Token, ...]


def pages_of(tokens: list[Token], size: int) -> list[Page]:
    """Returns the full blocks of `tokens`."""
    return [tuple(tokens[i : i + size]) for i in range(0, len(tokens) - size + 1, size)]
