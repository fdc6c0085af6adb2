"""The engine's own settings: taken over, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from simllm.errors import ScenarioError
from simllm.sim.policy.kv.tiers.spec import OwnTierPolicySpec, VllmOffloadingSpec
from simllm.sim.pool import ParallelConfig, PoolConfig
from simllm.sim.validate.replay import GivenSettings, replay_of
from simllm.sim.workload.traces.vllm_bench import BenchResult

from .handmade import write_bench


def pool_of(path: Path, given: GivenSettings | None = None) -> PoolConfig:
    return replay_of(BenchResult(path, None), given or GivenSettings()).scenario.pools[0]


def test_the_engine_s_settings_are_taken_over(tmp_path: Path) -> None:
    engine = {"block_size": 32, "tensor_parallel_size": 2, "async_scheduling": False}
    pool = pool_of(write_bench(tmp_path, engine=engine))
    assert (pool.device, pool.parallel.tp, pool.kv.block_size) == ("h200-sxm", 2, 32)
    assert (pool.kv.num_gpu_blocks, pool.scheduler.max_num_seqs) == (1000, 128)
    assert not pool.scheduler.async_scheduling


def test_fp8_weights_and_cache_are_taken_over(tmp_path: Path) -> None:
    pool = pool_of(write_bench(tmp_path, engine={"quantization": "fp8", "kv_cache_dtype": "fp8_e4m3"}))
    assert (pool.weight_dtype, pool.kv.dtype) == ("fp8", "fp8")


def test_stages_and_shared_experts_are_taken_over(tmp_path: Path) -> None:
    engine = {"tensor_parallel_size": 2, "pipeline_parallel_size": 4, "enable_expert_parallel": True}
    assert pool_of(write_bench(tmp_path, engine=engine)).parallel == ParallelConfig(tp=2, pp=4, ep=2)
    engine = {"tensor_parallel_size": 2, "enable_expert_parallel": False}
    assert pool_of(write_bench(tmp_path, engine=engine)).parallel == ParallelConfig(tp=2)


def test_offloading_to_the_cpu_is_replayed_by_vllms_rules(tmp_path: Path) -> None:
    engine = {"kv_offloading_size_gib": 64.0, "enable_prefix_caching": True}
    pool = pool_of(write_bench(tmp_path, engine=engine))
    assert pool.kv.tier_policy == VllmOffloadingSpec(kv_offloading_size_gib=64.0)
    assert pool_of(write_bench(tmp_path)).kv.tier_policy == OwnTierPolicySpec()


def test_offloading_without_prefix_caching_is_refused(tmp_path: Path) -> None:
    engine = {"kv_offloading_size_gib": 64.0, "enable_prefix_caching": False}
    with pytest.raises(ScenarioError, match=r"engine\.kv_offloading_size_gib: .* without prefix caching"):
        pool_of(write_bench(tmp_path, engine=engine))


def test_what_the_user_says_comes_last(tmp_path: Path) -> None:
    given = GivenSettings(device="h100-sxm", overrides=("pools.0.kv.num_gpu_blocks=77",))
    pool = pool_of(write_bench(tmp_path), given)
    assert (pool.device, pool.kv.num_gpu_blocks) == ("h100-sxm", 77)


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("data_parallel_size", 2, "data parallelism .* is not modelled"),
        ("quantization", "awq", "must be one of fp8"),
        ("kv_cache_dtype", "int8", "must be one of auto, fp8"),
        ("encoder_cache_size", 2048, "images cost"),
        ("attention_backend", "FLASHINFER", "must be one of"),
        ("mystery", 1, "not known here, and may change speed"),
    ],
)
def test_settings_that_are_not_modelled_are_refused_by_name(
    tmp_path: Path, setting: str, value: object, why: str
) -> None:
    with pytest.raises(ScenarioError, match=rf"run\.json: engine\.{setting}: .*{why}"):
        pool_of(write_bench(tmp_path, engine={setting: value}))


def test_all_settings_in_the_way_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        pool_of(write_bench(tmp_path, engine={"mystery": 1, "quantization": "awq"}))
    assert [problem.path.rpartition(".")[2] for problem in caught.value.problems] == [
        "mystery",
        "quantization",
    ]


def test_a_gpu_that_no_device_stands_for_asks_for_a_profile(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"engine\.gpu: .* give --profile"):
        pool_of(write_bench(tmp_path, engine={"gpu": "NVIDIA T4"}))
