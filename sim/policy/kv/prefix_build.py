"""Makes the prefix cache that a pool's settings ask for, by default the one of the scheduler's engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .beam_cache import BeamKvCache
from .block_reuse import BlockReuse
from .blocks import KvCache
from .ksana import KsanaKvCache
from .plain import PlainKvCache
from .prefix import PrefixKvCache
from .prefix_spec import (
    HashPrefixCache,
    KsanaPrefixCache,
    OwnPrefixCache,
    PrefixCache,
    RadixPrefixCache,
    TrtllmPrefixCache,
)
from .radix import RadixKvCache

# The caches of engines by the kinds of their schedulers; those that are not named have vLLM's.
# Source: docs/kv-cache.md.
_OWN: Mapping[str, PrefixCache] = MappingProxyType(
    {
        "sglang": RadixPrefixCache(),
        "tgi": RadixPrefixCache(),
        "trtllm": TrtllmPrefixCache(),
        "ksana": KsanaPrefixCache(),
    }
)


def own_prefix_cache(scheduler: str, device: str) -> PrefixCache | None:
    """Returns the prefix cache of a scheduler's engine on a device; None if it has none."""
    # KsanaLLM's build for Ascend switches prefix caching off.
    # Source: KsanaLLM src/ksana_llm/utils/config/schedule_config_parser.cpp at c451219c, ENABLE_ACL.
    if scheduler == "ksana" and device.startswith("ascend"):
        return None
    return _OWN.get(scheduler, HashPrefixCache())


def make_plain_cache(*, num_blocks: int, block_size: int, scheduler: str) -> KvCache:
    """Returns a cache without prefixes; KsanaLLM's still swaps, vLLM V0's shares between samples."""
    if scheduler == "ksana":
        return KsanaKvCache(num_blocks=num_blocks, block_size=block_size, shares=False, num_spare_tokens=1)
    if scheduler == "vllm_v0":
        return BeamKvCache(num_blocks=num_blocks, block_size=block_size)
    return PlainKvCache(num_blocks=num_blocks, block_size=block_size)


def make_prefix_cache(
    spec: PrefixCache, *, num_blocks: int, block_size: int, scheduler: str, device: str
) -> KvCache:
    """Returns a cache with prefix caching, or one without if the engine has none and none is asked for.

    An engine's own cache learns from its scheduler when blocks have been computed; under another engine's,
    a cache takes them for computed as soon as their step is scheduled.
    """
    own = own_prefix_cache(scheduler, device)
    wanted = own if isinstance(spec, OwnPrefixCache) else spec
    if wanted is None:
        return make_plain_cache(num_blocks=num_blocks, block_size=block_size, scheduler=scheduler)
    is_own = own is not None and wanted.kind == own.kind
    if isinstance(wanted, RadixPrefixCache):
        return RadixKvCache(
            num_blocks=num_blocks,
            block_size=block_size,
            policy=wanted.eviction_policy,
            # Source: TGI backends/v3/src/radix.rs, RadixAllocator.free.
            keeps_answers=scheduler != "tgi",
            at_once=not is_own,
        )
    if isinstance(wanted, KsanaPrefixCache):
        return KsanaKvCache(
            num_blocks=num_blocks,
            block_size=block_size,
            num_spare_tokens=int(is_own),
            hits_whole_prompts=is_own,
            at_once=not is_own,
        )
    reuse: BlockReuse | None = None
    if isinstance(wanted, TrtllmPrefixCache):
        reuse = BlockReuse(
            prompt_priority=wanted.prompt_priority,
            output_priority=wanted.output_priority,
            is_partial=wanted.enable_partial_reuse and is_own,
            at_once=not is_own,
        )
    return PrefixKvCache(num_blocks=num_blocks, block_size=block_size, reuse=reuse)
