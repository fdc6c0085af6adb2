"""Tiers in time, by hand: what is loaded when, who waits for it, and what goes down.

Blocks of 4 tokens. A step takes 10 ms, and 1 ms for each token of a prompt unless it is the only one. A block
takes 1 ms between HBM and the host and 10 ms to and from what lies below. HBM has 16 blocks.
"""

from __future__ import annotations

import numpy as np
import pytest
from harness import make_demand, play, request_rows
from toys import ToyStepModel

from simllm.sim.policy.kv.tiers.prefetch import timeout_s
from simllm.sim.policy.kv.tiers.rules import TierRules
from simllm.sim.policy.kv.tiers.spec import PrefetchSpec
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import ContentRun
from simllm.sim.workload.demand import Demand

from .tiered import Tiered, tier

MODEL = ToyStepModel(base_s=0.010, token_s=0.001)
SYNC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False)
TEXT, OTHER = 1, 2


def texts(rows: list[tuple[float, int, int]], keys: list[int]) -> Demand:
    """Requests as (arrived_at, prompt_tokens, output_tokens), each prompt the beginning of its own text."""
    demand = make_demand(rows)
    demand.contents = [(ContentRun(key, tokens),) for key, (_, tokens, _) in zip(keys, rows, strict=True)]
    return demand


def ttfts(demand: Demand, tiered: Tiered, **how: object) -> list[float]:
    recorder, _ = play(
        demand,
        model=MODEL,
        spec=SYNC,
        num_blocks=16,
        caches=True,
        checks_blocks=True,
        tiers=tiered.make,
        **how,  # type: ignore[arg-type]
    )
    rows = request_rows(recorder)
    return [round(float(ttft), 6) for ttft in rows[:, 2] - rows[:, 0]]


# 41 tokens are 10 full blocks and a token. A stranger of 60 tokens pushes them out of HBM, the third request
# asks for them again: computed, 10 + 41 ms; loaded, 10 blocks and then a step of one token, 10 ms.
AGAIN = texts([(0.0, 41, 1), (1.0, 60, 1), (2.0, 41, 1)], [TEXT, OTHER, TEXT])


def test_without_tiers_it_is_computed_again() -> None:
    recorder, _ = play(AGAIN, model=MODEL, spec=SYNC, num_blocks=16, caches=True)
    rows = request_rows(recorder)
    # The tail was pushed out first: 15 of the 16 blocks were taken, one is left of the text.
    assert rows[2, 2] - rows[2, 0] == pytest.approx(0.010 + 0.041 - 0.004)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        # 1 block is in HBM; 9 take 9 ms, then the last token's step 10 ms.
        ("async", 0.009 + 0.010),
        ("before", 0.009 + 0.010),
        # Of the step's two layers the first is computed meanwhile: it begins 5 ms before the load ends.
        ("along", 0.009 + 0.010 / 2),
    ],
)
def test_a_load_takes_its_time_and_its_way(load: str, expected: float) -> None:
    tiered = Tiered([tier("dram", 100)], TierRules(load=load, num_direct=1))  # type: ignore[arg-type]
    assert ttfts(AGAIN, tiered)[2] == pytest.approx(expected)
    traffic = tiered.caches[0].traffic["dram"]
    assert (traffic.hit_tokens, traffic.read_bytes) == (36, 9 << 20)
    assert traffic.written_bytes == (10 + 15) << 20


def test_others_go_on_while_a_request_waits_for_its_load() -> None:
    # A load of 9 x 50 ms: a request that arrives 10 ms later is served in its own 10 + 5 ms meanwhile.
    demand = texts([(0.0, 41, 1), (5.0, 60, 1), (9.0, 41, 1), (9.01, 5, 1)], [TEXT, OTHER, TEXT, 3])
    waits = ttfts(demand, Tiered([tier("dram", 100)], TierRules(load="async", num_direct=1), copy_s=0.05))
    assert waits[3] == pytest.approx(0.015)
    assert waits[2] == pytest.approx(0.45 + 0.010)


def test_a_load_is_noticed_with_the_output_of_the_first_step_begun_after_it() -> None:
    # The third request decodes: 9.000 prompt, 9.015 step 2, 9.025 step 3, 9.035 step 4. The fourth arrives in
    # the prompt's step and loads from 9.015 to 9.020; step 3 finds that, and step 4 computes its last token.
    demand = texts([(0.0, 41, 1), (5.0, 60, 1), (9.0, 5, 6), (9.012, 41, 1)], [TEXT, OTHER, 3, TEXT])
    tiered = Tiered([tier("dram", 100)], TierRules(load="async", num_direct=1), copy_s=0.0005)
    assert ttfts(demand, tiered)[3] == pytest.approx(9.045 - 9.012)


def test_two_that_need_the_same_load_it_once() -> None:
    demand = texts([(0.0, 41, 1), (5.0, 60, 1), (9.0, 41, 1), (9.001, 41, 1)], [TEXT, OTHER, TEXT, TEXT])
    tiered = Tiered([tier("dram", 100)], TierRules(load="async", num_direct=1), copy_s=0.05)
    waits = ttfts(demand, tiered)
    assert tiered.caches[0].traffic["dram"].read_bytes == 9 << 20
    assert waits[3] == pytest.approx(0.45 - 0.001 + 0.010), "both prompts' last tokens in one step"


def test_what_is_slower_to_load_is_computed() -> None:
    # 9 blocks at 5 ms are 45 ms; their 36 tokens take 36 ms by the estimate of 1 ms each.
    rules = TierRules(load="before", num_direct=1, cheaper_only=True)
    tiered = Tiered([tier("dram", 100)], rules, copy_s=0.005, prefill_s=0.001)
    assert ttfts(AGAIN, tiered)[2] == pytest.approx(0.047)
    assert tiered.caches[0].traffic["dram"].recomputed_tokens == 36


def test_a_step_waits_for_what_hbm_writes_back() -> None:
    # The stranger's 15 blocks push out 9 of the text: its step begins 9 ms later. They come back likewise.
    tiered = Tiered([tier("dram", 100, write="write_back")], TierRules(load="before", num_direct=1))
    waits = ttfts(AGAIN, tiered, leaps=False)
    assert waits[1] == pytest.approx(0.009 + 0.010 + 0.060)
    assert tiered.caches[0].traffic["dram"].written_bytes >= 9 << 20


def test_only_what_is_used_often_enough_is_kept() -> None:
    selective = tier("dram", 100, write="write_through_selective", write_uses=2)
    tiered = Tiered([selective], TierRules(load="before", num_direct=1))
    demand = texts([(0.0, 41, 1), (1.0, 41, 1), (2.0, 20, 1)], [TEXT, TEXT, OTHER])
    ttfts(demand, tiered)
    assert tiered.caches[0].traffic["dram"].written_bytes == 10 << 20


def test_what_the_host_evicts_goes_down_and_comes_back_through_it() -> None:
    # The host has room for 15 blocks: the stranger pushes the text on to the disk, 10 blocks.
    specs = [tier("dram", 15), tier("nvme", 100, write="write_back")]
    tiered = Tiered(specs, TierRules(load="before", num_direct=2, promotes=True))
    waits = ttfts(AGAIN, tiered)
    nvme = tiered.caches[0].traffic["nvme"]
    assert nvme.hit_tokens == 36
    assert waits[2] == pytest.approx(9 * 0.010 + 0.010)
    # Back in the host: the text's blocks have pushed as many of the stranger's out, to the disk.
    assert nvme.written_bytes == (10 + 10) << 20


def test_replicas_share_a_global_tier() -> None:
    # The second replica never saw the text; the store has it from the first.
    demand = texts([(0.0, 41, 23), (0.2, 41, 1)], [TEXT, TEXT])
    tiered = Tiered([tier("remote", 100)], TierRules(load="before", num_direct=1))
    waits = ttfts(demand, tiered, num_replicas=2)
    assert tiered.caches[1].traffic["remote"].hit_tokens == 40
    assert waits[1] == pytest.approx(10 * 0.010 + 0.010, rel=0.01)


def hicache(stop: str, base_s: float) -> TierRules:
    prefetch = PrefetchSpec.model_validate(
        {
            "stop": stop,
            "threshold_tokens": 8,
            "timeout_base_s": base_s,
            "timeout_per_ki_token_s": 0.0,
            "piece_blocks": 2,
        }
    )
    return TierRules(load="along", num_direct=1, prefetch=prefetch)


@pytest.mark.parametrize(
    ("stop", "base_s", "fetched"),
    [("wait_complete", 0.0, 36), ("best_effort", 0.0, 8), ("timeout", 0.045, 24), ("timeout", 9.0, 36)],
)
def test_a_prefetch_ends_as_its_policy_says(stop: str, base_s: float, fetched: int) -> None:
    # HBM's block and 9 in the store, fetched 2 at a time, each block 10 ms. After 45 ms two pieces are there
    # and the third is on its way: it counts once it has arrived.
    specs = [tier("dram", 15), tier("remote", 100)]
    tiered = Tiered(specs, hicache(stop, base_s))
    ttfts(AGAIN, tiered)
    assert tiered.caches[0].traffic["dram"].prefetched_tokens == fetched


def test_sglang_waits_2_point_8_seconds_for_8192_tokens() -> None:
    spec = PrefetchSpec(stop="timeout", timeout_base_s=2.0, timeout_per_ki_token_s=0.1)
    assert timeout_s(spec, 8192) == pytest.approx(2.8)
    assert timeout_s(spec, 1 << 20) == 30.0


def test_the_next_turn_is_expected_and_its_content_fetched_before() -> None:
    # A turn ends; the next is due a second later. The host has lost it to a stranger, the store brings it.
    specs = [tier("dram", 15), tier("remote", 100)]
    prefetch = PrefetchSpec(on="next_turn", think_s=2.0, lead_s=0.5, threshold_tokens=8)
    rules = TierRules(load="before", num_direct=1, prefetch=prefetch)
    demand = texts([(0.0, 41, 1), (1.0, 60, 1), (2.5, 41, 1)], [TEXT, OTHER, TEXT])
    demand.session_id = np.array([7, -1, 7])
    demand.turn = np.array([0, 0, 1])
    tiered = Tiered(specs, rules)
    waits = ttfts(demand, tiered)
    assert tiered.caches[0].traffic["dram"].prefetched_tokens == 40
    assert waits[2] == pytest.approx(0.009 + 0.010)


def test_a_request_larger_than_what_others_hold_still_ends() -> None:
    # Both load at once into 16 blocks, and the first needs more than the second leaves.
    rows = [(0.0, 33, 1), (1.0, 29, 1), (2.0, 60, 1), (3.0, 33, 20), (3.0, 29, 20)]
    demand = texts(rows, [TEXT, OTHER, 3, TEXT, OTHER])
    tiered = Tiered([tier("dram", 100)], TierRules(load="async", num_direct=1), copy_s=0.02)
    assert all(np.isfinite(ttfts(demand, tiered)))
