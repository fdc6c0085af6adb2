"""What a load-or-recompute decision compares, by hand."""

from __future__ import annotations

import pytest
from toys import ToyStepModel

from simllm.sim.pool import PoolConfig
from simllm.sim.world.tiering import PrefillEstimate, needs_mover


def test_a_prompt_is_estimated_in_chunks_of_the_token_budget() -> None:
    # 100 tokens in chunks of 64: 10 + 64 ms and 10 + 36 ms.
    estimate = PrefillEstimate(ToyStepModel(base_s=0.010, token_s=0.001), budget=64)
    assert estimate(100, 0) == pytest.approx(0.120)
    assert estimate(0, 50) == 0.0


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, False),
        ({"kv": {"tiers": [{"tier": "dram", "capacity_gib": 1}]}}, True),
        ({"kv": {"tier_policy": {"kind": "hicache"}}}, True),
        ({"scheduler": {"kind": "vllm_v0"}}, True),
    ],
)
def test_only_pools_that_move_kv_have_a_mover(more: dict[str, object], expected: bool) -> None:
    config = PoolConfig.model_validate({"model": "llama-3.1-8b", "device": "h100-sxm", **more})
    assert needs_mover(config) is expected
