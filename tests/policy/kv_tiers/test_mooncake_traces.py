"""Hits against capacity on Mooncake's public traces, as its paper gives them.

Source: Qin et al., Mooncake, FAST'25, and the traces at https://github.com/kvcache-ai/Mooncake.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simllm.sim.policy.kv.tiers.eviction.lru import LruEviction
from simllm.sim.policy.kv.tiers.store import TierStore
from simllm.sim.workload.spec import MooncakeSpec
from simllm.sim.workload.traces.mooncake import load_mooncake

FOLDER = Path(os.environ.get("SIMLLM_TRACES", "/nonexistent")) / "mooncake"
BLOCK_TOKENS = 512
ENDLESS = 10**9

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs SIMLLM_TRACES")


def hit_rate(name: str, capacity_tokens: int) -> float:
    """Returns the share of the trace's blocks, the last one of a prompt included, that one LRU finds."""
    path = FOLDER / f"{name}_trace.jsonl"
    demand = load_mooncake(MooncakeSpec(path=str(path)), path)
    store = TierStore("remote", capacity_tokens // BLOCK_TOKENS, LruEviction())
    num_found = num_blocks = 0
    assert demand.contents is not None
    for runs in demand.contents:
        chain = tuple((key, -(-size // BLOCK_TOKENS)) for key, size in runs or ())
        end = sum(size for _, size in chain)
        num_found += store.match(chain, 0, end)
        num_blocks += end
        use = store.use(0.0)
        store.touch(chain, end, use)
        spans, _ = store.insert(chain, (0, end), use)
        store.complete(chain, spans)
    store.check()
    return num_found / num_blocks


def test_three_million_tokens_catch_a_third_of_the_conversations_repetition() -> None:
    # Published: 13.6 of 36.6 per cent.
    assert hit_rate("conversation", 3_000_000) == pytest.approx(0.136, abs=0.001)
    assert hit_rate("conversation", ENDLESS) == pytest.approx(0.366, abs=0.001)


def test_three_million_tokens_catch_half_of_the_synthetic_trace() -> None:
    # Published: 0.48 of the most that could be hit.
    share = hit_rate("synthetic", 3_000_000) / hit_rate("synthetic", ENDLESS)
    assert share == pytest.approx(0.48, abs=0.005)
