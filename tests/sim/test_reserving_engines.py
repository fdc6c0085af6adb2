"""Whole runs under engines that reserve memory, pad, or attend in plain matrix products."""

from __future__ import annotations

from pathlib import Path

import pytest

from simllm.sim.deployment import deploy
from simllm.sim.outcome.results import Result
from simllm.sim.run import simulate

from .small import scenario

# 9,600 tokens of KV for 40 requests at once.
TIGHT = ("pools.0.kv.num_gpu_blocks={}", "workload.arrivals={{kind: burst}}", "pools.0.kv.block_size={}")
SWITCHES = ("remove_input_padding", "use_context_fmha", "paged_kv_cache", "gpt_attention_plugin")
ENGINES = [
    "{kind: static}",
    "{kind: static, max_batch_size: 16, attn_implementation: eager, cache: legacy}",
    "{kind: static, max_queue_delay_s: 0.2}",
    "{kind: orca, max_model_len: 1024}",
    "{kind: orca, reservation: pow2, max_model_len: 1024, fuses_attention: false}",
    "{kind: orca, reservation: oracle, max_model_len: 1024}",
    "{kind: tgi}",
    "{kind: tgi, version: v2}",
    "{kind: tgi, version: 2023-06}",
    "{kind: trtllm}",
    "{kind: trtllm, capacity_scheduler_policy: MAX_UTILIZATION, enable_chunked_prefill: true}",
    "{kind: trtllm, capacity_scheduler_policy: STATIC_BATCH}",
    *(f"{{kind: trtllm, max_seq_len: 1024, {switch}: false}}" for switch in SWITCHES),
]


def run(engine: str, *overrides: str) -> Result:
    """Runs under an engine with blocks of its own size and as many tokens of KV as the others have."""
    size = scenario(f"pools.0.scheduler={engine}").pools[0].kv.block_size
    tight = [text.format(value) for text, value in zip(TIGHT, (9600 // size + 1, "", size), strict=True)]
    return simulate(scenario(*tight, f"pools.0.scheduler={engine}", *overrides))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_request_ends_and_leaps_change_nothing(engine: str) -> None:
    leaping, plain = run(engine).summary(), run(engine, "run.leaps=false").summary()
    assert leaping["completed"] == 40
    for key in ("mean_ttft_ms", "mean_tpot_ms", "p99_itl_ms", "p99_e2el_ms", "num_preemptions", "duration"):
        assert leaping[key] == pytest.approx(plain[key], rel=1e-9)


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_of_tensorrt_llm_brings_something(switch: str) -> None:
    on, off = "{kind: trtllm, max_seq_len: 1024}", f"{{kind: trtllm, max_seq_len: 1024, {switch}: false}}"
    assert run(off).summary()["duration"] > run(on).summary()["duration"]


def test_what_is_reserved_without_use_admits_fewer() -> None:
    running = [
        run(f"{{kind: orca, max_model_len: 1024, reservation: {name}}}").summary()["replicas"][0][
            "max_running"
        ]
        for name in ("max", "pow2", "oracle")
    ]
    assert running == sorted(running)
    assert running[0] == 9  # 9,600 slots of 1,024 each


def test_static_batches_return_their_answers_together() -> None:
    requests = run("{kind: static}").requests
    assert requests["finished_at"].nunique() == 5  # 40 requests in batches of 8


def test_a_launch_for_each_request_takes_longer_than_one_for_all() -> None:
    apart, together = (
        run(f"{{kind: orca, reservation: oracle, max_model_len: 1024, fuses_attention: {fused}}}").summary()[
            "mean_tpot_ms"
        ]
        for fused in ("false", "true")
    )
    assert apart > together


@pytest.mark.parametrize(
    ("engine", "layout", "block_size", "attention", "largest_graph"),
    [
        ("{kind: static}", "paged", 1, "fa2", 0),
        ("{kind: static, attn_implementation: eager}", "paged", 1, "naive", 0),
        ("{kind: orca}", "contiguous", 1, "fa2", 0),
        ("{kind: tgi, version: 2023-06}", "paged", 1, "fa1", 0),
        ("{kind: tgi, version: v2}", "paged", 16, "fa2", 32),
        ("{kind: tgi}", "paged", 1, "fa2", 32),
        ("{kind: trtllm}", "paged", 32, "fa3", 128),
        ("{kind: trtllm, use_context_fmha: false}", "paged", 32, "naive", 128),
        ("{kind: trtllm, paged_kv_cache: false}", "contiguous", 32, "fa3", 128),
        ("{kind: trtllm, gpt_attention_plugin: false}", "contiguous", 32, "naive", 128),
    ],
)
def test_engines_bring_their_own_memory_attention_and_graphs(
    engine: str, layout: str, block_size: int, attention: str, largest_graph: int, tmp_path: Path
) -> None:
    pool = scenario(f"pools.0.scheduler={engine}").pools[0]
    assert (pool.kv.layout.kind, pool.kv.block_size, pool.attention_impl) == (layout, block_size, attention)
    limited = scenario(f"pools.0.scheduler={engine}", "pools.0.kv.num_gpu_blocks=200000").pools[0]
    assert deploy(limited, tmp_path).graphs.largest == largest_graph


def test_only_engines_of_today_attend_in_vllms_style() -> None:
    styles = {
        engine: scenario(f"pools.0.scheduler={engine}").pools[0].scheduler.attention_style.is_plain
        for engine in ("{kind: vllm_v1}", "{kind: trtllm}", "{kind: tgi}", "{kind: static}", "{kind: orca}")
    }
    assert list(styles.values()) == [True, True, True, False, False]


def test_what_a_user_gives_for_the_pool_wins() -> None:
    pool = scenario(
        "pools.0.scheduler={kind: orca}", "pools.0.attention_impl=naive", "pools.0.kv.layout={kind: paged}"
    ).pools[0]
    assert (pool.attention_impl, pool.kv.layout.kind, pool.kv.block_size) == ("naive", "paged", 1)
