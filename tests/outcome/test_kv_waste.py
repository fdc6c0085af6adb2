"""Waste of the KV cache, by hand: one request, and two of which one waits."""

from __future__ import annotations

import numpy as np
import pytest

from simllm.sim.outcome.kv_waste import Holdings, kv_waste
from simllm.sim.outcome.meta import KvLayout
from simllm.sim.outcome.rows import RequestRows, request_rows
from simllm.sim.outcome.steps import StepRuns, step_runs
from simllm.sim.world.recorder import Recorder, Status

from .handmade import make_demand, make_recorder, make_step, make_totals


def rows_of(*requests: tuple[float, float, float, int, int]) -> RequestRows:
    """Finished requests as (scheduled_at, first_token_at, finished_at, prompt_tokens, output_tokens)."""
    demand = make_demand()
    size = len(requests)
    recorder = Recorder(size, record_steps=False)
    for row, (start, first, end, _, outputs) in enumerate(requests):
        recorder.scheduled_at[row], recorder.first_token_at[row], recorder.finished_at[row] = (
            start,
            first,
            end,
        )
        recorder.output_tokens[row], recorder.replica[row] = outputs, 0
        recorder.status[row] = Status.FINISHED
    demand.arrived_at = np.zeros(size)
    demand.prompt_tokens = np.array([request[3] for request in requests])
    demand.output_tokens = np.array([request[4] for request in requests])
    return request_rows(recorder, demand)[0]


NO_STEPS = step_runs([], 2)


def waste(rows: RequestRows, layout: KvLayout, runs: StepRuns = NO_STEPS) -> tuple[float, ...]:
    return tuple(Holdings(rows, layout, make_totals()).waste(runs, slice(0, len(runs))))


def test_a_paged_request_wastes_the_rest_of_its_last_block() -> None:
    # Blocks of 16. 30 prompt tokens for 1 s: 32 slots. Then 3 steps of 1 s with 31, 32 and 33 tokens in 32,
    # 32 and 48 slots: useful 30 + 96, held 32 + 112.
    rows = rows_of((0.0, 1.0, 4.0, 30, 4))
    assert waste(rows, KvLayout()) == pytest.approx((126, 0, 18, 0))


def test_an_answer_of_one_token_that_is_held_on_wastes_no_less_than_nothing() -> None:
    # 30 prompt tokens in 32 slots for 1 s, and for 3 s more, until its static batch has ended.
    assert waste(rows_of((0.0, 1.0, 4.0, 30, 1)), KvLayout()) == pytest.approx((120, 0, 8, 0))


def test_a_contiguous_request_reserves_what_it_will_fill_and_what_it_never_will() -> None:
    # It fills 33 of 100 reserved slots: 4 s x 33 less what is filled, and 4 s x 67 for nothing.
    rows = rows_of((0.0, 1.0, 4.0, 30, 4))
    layout = KvLayout("max", rounds_up=False, max_model_len=100)
    assert waste(rows, layout) == pytest.approx((126, 4 * 33 - 126, 4 * 67, 0))


def test_the_buddy_system_rounds_what_is_reserved_up() -> None:
    rows = rows_of((0.0, 1.0, 4.0, 30, 4))
    assert waste(rows, KvLayout("oracle", rounds_up=True, max_model_len=100))[2] == pytest.approx(
        4 * (64 - 33)
    )


def test_free_slots_are_stranded_only_while_a_request_waits() -> None:
    # 1,600 slots of which 100 are reserved; somebody waits in the second of two steps of 0.5 s.
    steps = [make_step(1, 0.0, 0.5), make_step(2, 0.5, 0.5, num_waiting=1)]
    rows = rows_of((0.0, 1.0, 4.0, 30, 4))
    layout = KvLayout("max", rounds_up=False, max_model_len=100)
    assert waste(rows, layout, step_runs(steps, 2))[3] == pytest.approx(0.5 * 1500)
    assert waste(rows, KvLayout(), step_runs(steps, 2))[3] == 0, "a free block fits anybody"


def test_tokens_in_the_cache_grow_from_the_first_token_to_the_last() -> None:
    holdings = Holdings(rows_of((0.0, 1.0, 4.0, 30, 4)), KvLayout("max", max_model_len=100), make_totals())
    at = np.array([-0.5, 0.5, 1.0, 2.0, 3.999, 4.0])
    assert holdings.filled_at(at) == pytest.approx([0, 30, 30, 31, 32.999, 0], abs=1e-9)
    assert holdings.held_at(at).tolist() == [0, 100, 100, 100, 100, 0]


def test_the_shares_add_up_and_are_unknown_without_steps() -> None:
    rows, _ = request_rows(make_recorder(), make_demand())
    recorder = make_recorder()
    runs = step_runs(recorder.steps or [], 2)
    shares = kv_waste(rows, runs, {}, recorder.replicas)
    assert shares is not None
    kinds = [shares[f"{kind}_share"] or 0.0 for kind in ("useful", "reserved", "internal", "external")]
    assert sum(kinds) == pytest.approx(1)
    assert shares["waste_share"] == pytest.approx(1 - kinds[0])
    assert kv_waste(rows, None, {}, recorder.replicas) is None
