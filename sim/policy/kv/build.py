"""Which KV cache a pool's settings ask for."""

from __future__ import annotations

from .blocks import KvCache
from .contiguous import ContiguousKvCache
from .layout_spec import ContiguousLayout
from .prefix_build import make_plain_cache, make_prefix_cache
from .quantization_spec import AttentionSinksSparsity, SlidingWindowSparsity
from .spec import KvConfig
from .tiers.build import TierSetup
from .window import WindowKvCache


def make_kv_cache(
    config: KvConfig,
    *,
    num_blocks: int,
    max_model_len: int,
    block_bytes: float,
    tiers: TierSetup | None = None,
    scheduler: str = "vllm_v1",
    device: str = "",
) -> KvCache:
    """Returns the cache of one replica, of `num_blocks` blocks that requests can hold.

    max_model_len: the longest prompt plus answer [tokens]. block_bytes: one block on all GPUs of the replica
    [B]. tiers: what lies under HBM, None for nothing. scheduler: the kind of the replica's scheduler, whose
    own prefix cache is the default; device: the name of its GPU.
    """
    if isinstance(config.layout, ContiguousLayout):
        return ContiguousKvCache(
            num_slots=num_blocks * config.block_size,
            allocator=config.layout.allocator,
            reserve=config.layout.reserve,
            compaction=config.layout.compaction,
            max_model_len=max_model_len,
            slot_bytes=block_bytes / config.block_size,
        )
    size, sparsity = config.block_size, config.sparsity
    if isinstance(sparsity, SlidingWindowSparsity | AttentionSinksSparsity):
        sinks = sparsity.sink_tokens if isinstance(sparsity, AttentionSinksSparsity) else 0
        window = sparsity.window_tokens
        return WindowKvCache(num_blocks=num_blocks, block_size=size, window_tokens=window, sink_tokens=sinks)
    if config.enable_prefix_caching:
        in_hbm = make_prefix_cache(
            config.prefix_cache, num_blocks=num_blocks, block_size=size, scheduler=scheduler, device=device
        )
    else:
        in_hbm = make_plain_cache(num_blocks=num_blocks, block_size=size, scheduler=scheduler)
    return in_hbm if tiers is None else tiers.over(in_hbm)
