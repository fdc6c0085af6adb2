"""The `kv:` part of a pool: which layouts, scales and sparsity go together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from simllm.sim.policy.kv.build import make_kv_cache
from simllm.sim.policy.kv.contiguous import ContiguousKvCache
from simllm.sim.policy.kv.spec import KvConfig
from simllm.sim.policy.kv.window import WindowKvCache
from simllm.sim.step_models import kv_compression


def config(**settings: Any) -> KvConfig:
    return KvConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"layout": {"kind": "contiguous"}, "enable_prefix_caching": True},
            "layout contiguous has no blocks to share",
        ),
        ({"sparsity": {"kind": "h2o"}, "enable_prefix_caching": True}, "sparsity h2o has no blocks to share"),
        ({"layout": {"kind": "contiguous"}, "sparsity": {"kind": "h2o"}}, "use layout paged"),
        (
            {"layout": {"kind": "contiguous", "allocator": "buddy", "compaction": True}},
            "first_fit or best_fit",
        ),
        ({"scales": {"kind": "per_group"}}, "scales per_group need a dtype of fp8, int8, int4"),
        ({"dtype": "int4"}, "dtype int4 needs scales per_channel or per_group"),
        ({"sparsity": {"kind": "h2o", "keep_share": 0}}, "greater than 0"),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    "settings", [{"layout": {"kind": "contiguous"}}, {"sparsity": {"kind": "sliding_window"}}]
)
def test_prefix_caching_is_off_where_nothing_is_shared_and_a_lock_says_so(settings: dict[str, Any]) -> None:
    chosen = config(**settings)
    assert not chosen.enable_prefix_caching
    assert config(**chosen.model_dump()) == chosen, "the lock's settings mean the same"
    assert config().enable_prefix_caching


def test_settings_come_to_the_bytes_and_flops_of_a_token() -> None:
    int4 = kv_compression(config(dtype="int4", scales={"kind": "per_group", "group_size": 32}))
    assert (int4.scale_bytes, int4.scale_flops) == (0.125, 1.0)
    folded = kv_compression(config(dtype="int4", scales={"kind": "per_channel", "group_size": 32}))
    assert (folded.scale_bytes, folded.scale_flops) == (0.125, 0.0)
    assert kv_compression(config(sparsity={"kind": "h2o", "keep_share": 0.3})).keep_share == 0.3
    sinks = {"kind": "attention_sinks", "sink_tokens": 4, "window_tokens": 1000}
    assert kv_compression(config(sparsity=sinks)).window == 1004


def test_layouts_and_windows_have_caches_of_their_own() -> None:
    def made(**settings: Any) -> object:
        return make_kv_cache(config(**settings), num_blocks=100, max_model_len=512, block_bytes=16_000)

    contiguous = made(layout={"kind": "contiguous"})
    assert isinstance(contiguous, ContiguousKvCache)
    assert contiguous.num_blocks == 1600
    assert isinstance(made(sparsity={"kind": "attention_sinks"}), WindowKvCache)
