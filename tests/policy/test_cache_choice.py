"""Which prefix cache a pool gets, and what every one of them owes: blocks that add up, requests that end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from simllm.sim.policy.kv.block_reuse import BlockReuse
from simllm.sim.policy.kv.blocks import KvCache
from simllm.sim.policy.kv.ksana import KsanaKvCache
from simllm.sim.policy.kv.plain import PlainKvCache
from simllm.sim.policy.kv.prefix import PrefixKvCache
from simllm.sim.policy.kv.prefix_build import make_plain_cache, make_prefix_cache, own_prefix_cache
from simllm.sim.policy.kv.prefix_spec import OwnPrefixCache, PrefixCache
from simllm.sim.policy.kv.radix import RadixKvCache
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Scheduler, VllmV1Spec
from simllm.sim.request import ContentRun, Request

MAKE: dict[str, Callable[[int], KvCache]] = {
    "hash": lambda num_blocks: PrefixKvCache(num_blocks=num_blocks, block_size=4),
    "radix": lambda num_blocks: RadixKvCache(num_blocks=num_blocks, block_size=4, at_once=True),
    "trtllm": lambda num_blocks: PrefixKvCache(
        num_blocks=num_blocks,
        block_size=4,
        reuse=BlockReuse(80, 20, is_partial=False, at_once=True),
    ),
    "ksana": lambda num_blocks: KsanaKvCache(num_blocks=num_blocks, block_size=4, at_once=True),
}


@pytest.mark.parametrize(
    ("scheduler", "device", "kind"),
    [
        ("vllm_v1", "h100-sxm", "hash"),
        ("sglang", "h100-sxm", "radix"),
        ("tgi", "a10g", "radix"),
        ("trtllm", "h100-sxm", "trtllm"),
        ("ksana", "a100-40gb", "ksana"),
        ("ksana", "ascend-910b", None),
        ("sglang", "ascend-910b", "radix"),
    ],
)
def test_an_engine_has_its_own_cache(scheduler: str, device: str, kind: str | None) -> None:
    own = own_prefix_cache(scheduler, device)
    assert (None if own is None else own.kind) == kind


@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("hash", PrefixKvCache),
        ("radix", RadixKvCache),
        ("trtllm", PrefixKvCache),
        ("ksana", KsanaKvCache),
    ],
)
def test_any_cache_can_be_asked_for(kind: str, cache: type) -> None:
    spec: PrefixCache = TypeAdapter(PrefixCache).validate_python({"kind": kind})
    made = make_prefix_cache(spec, num_blocks=10, block_size=16, scheduler="vllm_v1", device="h100-sxm")
    assert type(made) is cache
    live_blocks = (made.num_blocks, made.num_free, made.block_size)
    assert live_blocks == (10, 10, 16)


def test_without_a_prefix_cache_only_ksana_can_swap() -> None:
    auto = OwnPrefixCache()
    made = make_prefix_cache(auto, num_blocks=10, block_size=16, scheduler="ksana", device="ascend-910b")
    assert isinstance(made, KsanaKvCache)
    assert isinstance(make_plain_cache(num_blocks=10, block_size=16, scheduler="orca"), PlainKvCache)


PROMPTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(1, 12), st.integers(1, 20)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(prompts=PROMPTS, kind=st.sampled_from(sorted(MAKE)), num_blocks=st.sampled_from([18, 30, 400]))
def test_every_request_ends_and_blocks_add_up(
    prompts: list[tuple[int, int, int, int]], kind: str, num_blocks: int
) -> None:
    kv = MAKE[kind](num_blocks)
    assert play(kv, prompts) == len(prompts)
    assert kv.num_free == num_blocks


@settings(max_examples=100, deadline=None)
@given(prompts=PROMPTS, kind=st.sampled_from(["radix", "trtllm", "ksana"]))
def test_caches_that_never_evict_hit_the_same(prompts: list[tuple[int, int, int, int]], kind: str) -> None:
    caches = [MAKE["hash"](4000), MAKE[kind](4000)]
    for kv in caches:
        play(kv, prompts)
    assert caches[0].stats == caches[1].stats


def play(kv: KvCache, prompts: list[tuple[int, int, int, int]]) -> int:
    """Plays prompts of (family, its tokens, own tokens, answer); returns how many requests end."""
    spec = VllmV1Spec(max_num_seqs=4, max_num_batched_tokens=24, async_scheduling=False)
    scheduler = VllmV1Scheduler(spec, kv=kv, max_model_len=1000)
    for index, (family, shared, own, answer) in enumerate(prompts):
        content = (ContentRun(family, shared), ContentRun(100 + index, own))
        assert scheduler.add(Request(index, 0.0, shared + own, answer, content)) is None
    num_ended = 0
    while scheduler.num_running or scheduler.num_waiting:
        batch = scheduler.schedule() or scheduler.schedule()
        assert batch is not None
        scheduler.check()
        scheduler.finish(batch.finishing)
        num_ended += len(batch.finishing)
    return num_ended
