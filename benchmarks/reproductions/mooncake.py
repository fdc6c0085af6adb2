"""Mooncake: how much of its public traces a cache of 3 million tokens finds."""

from __future__ import annotations

import os
from functools import cache, partial
from pathlib import Path

from simllm.sim.policy.kv.tiers.eviction.lru import LruEviction
from simllm.sim.policy.kv.tiers.store import TierStore
from simllm.sim.workload.spec import MooncakeSpec
from simllm.sim.workload.traces.mooncake import load_mooncake

from .row import Row

SOURCE = "https://www.usenix.org/conference/fast25/presentation/qin"
BLOCK_TOKENS = 512
LOCAL_TOKENS = 3_000_000  # of 1 TB
ENDLESS = 10**9


@cache
def _hit_rate(trace: str, capacity_tokens: int) -> float:
    """Returns the share of a trace's blocks, the last one of a prompt included, that one LRU finds."""
    path = Path(os.environ["SIMLLM_TRACES"]) / "mooncake" / f"{trace}_trace.jsonl"
    contents = load_mooncake(MooncakeSpec(path=str(path)), path).contents
    store = TierStore("remote", capacity_tokens // BLOCK_TOKENS, LruEviction())
    num_found = num_blocks = 0
    for runs in contents or ():
        chain = tuple((key, -(-size // BLOCK_TOKENS)) for key, size in runs or ())
        end = sum(size for _, size in chain)
        num_found += store.match(chain, 0, end)
        num_blocks += end
        use = store.use(0.0)
        store.touch(chain, end, use)
        spans, _ = store.insert(chain, (0, end), use)
        store.complete(chain, spans)
    return num_found / num_blocks


def _percent(trace: str, capacity_tokens: int) -> float:
    return 100 * _hit_rate(trace, capacity_tokens)


def _share(trace: str) -> float:
    return _hit_rate(trace, LOCAL_TOKENS) / _hit_rate(trace, ENDLESS)


def _row(name: str, claim: str, metric: str, published: float) -> Row:
    trace = name.split("-")[0]
    measure = partial(_share, trace)
    if "%" in metric:
        measure = partial(_percent, trace, ENDLESS if name.endswith("most") else LOCAL_TOKENS)
    return Row(
        id=f"mooncake-{name}",
        claim=claim,
        source=SOURCE,
        model="any",
        device="1 TB of DRAM" if "3 million" in claim else "unlimited memory",
        engine="one LRU of blocks of 512 tokens",
        workload=f"Mooncake's {trace} trace",
        metric=metric,
        published=(published, published),
        measure=measure,
        needs=("SIMLLM_TRACES",),
    )


ROWS = (
    _row("conversation-local", "3 million tokens find 13.6 % of the blocks", "hit rate [%]", 13.6),
    _row("conversation-most", "36.6 % of the blocks can be found", "hit rate [%]", 36.6),
    _row("synthetic-local", "3 million tokens find 0.48 of what can be found", "share of the most", 0.48),
)
