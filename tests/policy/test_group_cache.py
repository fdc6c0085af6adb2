"""Samples of one request as a group: one prompt, shared blocks, and copies of the last one."""

from __future__ import annotations

import math

import numpy as np
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.kv.beam_cache import BeamKvCache
from simllm.sim.policy.kv.group import GroupKvCache
from simllm.sim.policy.scheduler.vllm_v0 import VllmV0Spec
from simllm.sim.workload.demand import Demand
from simllm.sim.world.recorder import Status

SPEC = VllmV0Spec(max_num_seqs=8, max_num_batched_tokens=64, max_model_len=200, watermark=0.0)


def sampled(rows: list[tuple[float, int, int]], num_samples: list[int]) -> Demand:
    demand = make_demand(rows)
    demand.num_samples = np.array(num_samples)
    return demand


def group_cache(num_blocks: int = 64) -> GroupKvCache:
    return GroupKvCache(num_blocks=num_blocks, block_size=4)


def test_three_samples_compute_one_prompt_and_copy_its_last_block() -> None:
    # Blocks of 4: 10 prompt tokens are 3 blocks, and 2 samples copy the third. Then three decode together:
    # contexts 11 and 12 fill those, 13 begins a block for each.
    recorder, _ = play(sampled([(0.0, 10, 5)], [3]), spec=SPEC, make_kv=group_cache)
    steps = recorder.steps or []
    assert (steps[0].num_prefill_tokens, steps[0].kv_blocks_used) == (10, 5)
    assert steps[1].num_decodes == 3
    blocks = step_rows(recorder)[:, -1].tolist()
    assert blocks == [5, 5, 5, 8, 8]
    assert recorder.output_tokens[0] == 15


def test_a_prompt_of_whole_blocks_needs_no_copies() -> None:
    recorder, _ = play(sampled([(0.0, 8, 3)], [3]), spec=SPEC, make_kv=group_cache)
    assert step_rows(recorder)[:, -1].tolist() == [2, 5, 5]


def test_more_samples_than_sequences_may_run_are_refused() -> None:
    recorder, _ = play(sampled([(0.0, 8, 3)], [9]), spec=SPEC, make_kv=group_cache)
    assert recorder.status[0] == Status.REJECTED
    assert recorder.reasons[0] == "exceeds_max_num_seqs"


def test_a_group_waits_until_all_its_samples_have_a_slot() -> None:
    # 8 slots: 5 of the first; the second's 4 begin when the first has ended.
    recorder, _ = play(sampled([(0.0, 8, 3), (0.0, 8, 3)], [5, 4]), spec=SPEC, make_kv=group_cache)
    assert recorder.scheduled_at[1] >= recorder.finished_at[0]


REQUESTS = st.lists(
    st.tuples(st.floats(0, 2), st.integers(1, 60), st.integers(1, 40), st.integers(1, 4)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(
    rows=REQUESTS,
    num_blocks=st.sampled_from([30, 45, 200]),
    spec=st.builds(
        VllmV0Spec,
        max_num_seqs=st.sampled_from([4, 8]),
        max_num_batched_tokens=st.sampled_from([16, 64]),
        max_model_len=st.just(120),
        enable_chunked_prefill=st.booleans(),
        preemption_mode=st.sampled_from(["auto", "recompute"]),
        swap_space=st.just(0.0),
    ),
)
def test_leaps_change_nothing_and_blocks_add_up(
    rows: list[tuple[float, int, int, int]], num_blocks: int, spec: VllmV0Spec
) -> None:
    rows = sorted(rows)
    leapt, plain = (
        play(
            sampled([row[:3] for row in rows], [row[3] for row in rows]),
            spec=spec,
            model=ToyStepModel(base_s=math.pi / 300, token_s=0.0007, context_s=1.3e-5),
            leaps=leaps,
            checks_blocks=True,
            make_kv=lambda: group_cache(num_blocks),
        )[0]
        for leaps in (True, False)
    )
    np.testing.assert_allclose(request_rows(leapt), request_rows(plain), rtol=1e-9)
    np.testing.assert_allclose(step_rows(leapt), step_rows(plain), rtol=1e-9, atol=1e-12)
    done = np.asarray(plain.status) == Status.FINISHED
    wanted = np.array([outputs * samples for _, _, outputs, samples in rows])
    assert (np.asarray(plain.output_tokens)[done] == wanted[done]).all()
    assert all(status in (Status.FINISHED, Status.REJECTED) for status in plain.status)


def searched(rows: list[tuple[float, int, int]], widths: list[int]) -> Demand:
    demand = make_demand(rows)
    demand.beam_width = np.array(widths)
    return demand


def beam_cache(num_blocks: int = 64) -> BeamKvCache:
    return BeamKvCache(num_blocks=num_blocks, block_size=4)


def test_beams_hold_less_than_samples_of_the_same_length() -> None:
    def most_blocks(demand: Demand) -> int:
        recorder, _ = play(demand, spec=SPEC, make_kv=beam_cache, checks_blocks=True)
        return max(step_rows(recorder)[:, -1])

    # 40 tokens each: 4 beams share their common past, 4 samples the prompt's 8 tokens only.
    assert most_blocks(searched([(0.0, 8, 40)], [4])) < most_blocks(sampled([(0.0, 8, 40)], [4]))


def test_a_beam_request_has_the_tokens_of_all_beams_and_all_blocks_come_free() -> None:
    recorder, engines = play(searched([(0.0, 10, 30)], [4]), spec=SPEC, make_kv=beam_cache)
    assert recorder.output_tokens[0] == 120
    assert engines[0].scheduler.kv.num_free == 64


@settings(deadline=None, max_examples=60)
@given(
    rows=REQUESTS,
    num_blocks=st.sampled_from([30, 45, 200]),
    is_chunked=st.booleans(),
    swap_space=st.sampled_from([0.0, 1.0]),
)
def test_beams_end_whatever_is_preempted(
    rows: list[tuple[float, int, int, int]], num_blocks: int, is_chunked: bool, swap_space: float
) -> None:
    spec = VllmV0Spec(
        max_num_seqs=8,
        max_num_batched_tokens=64,
        max_model_len=120,
        enable_chunked_prefill=is_chunked,
        swap_space=swap_space,
    )
    rows = sorted(rows)
    leapt, plain = (
        play(
            searched([row[:3] for row in rows], [row[3] if row[3] > 1 else 0 for row in rows]),
            spec=spec,
            model=ToyStepModel(base_s=math.pi / 300, token_s=0.0007, context_s=1.3e-5),
            leaps=leaps,
            checks_blocks=True,
            copy_s=1e-4,
            make_kv=lambda: beam_cache(num_blocks),
        )[0]
        for leaps in (True, False)
    )
    np.testing.assert_allclose(request_rows(leapt), request_rows(plain), rtol=1e-9)
    assert all(status in (Status.FINISHED, Status.REJECTED) for status in plain.status)
