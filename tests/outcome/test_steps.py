"""Runs of steps expand to just the steps that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.hwmodels.step import DecodeLine
from simllm.sim.outcome.results import Result
from simllm.sim.outcome.steps import StepRows, step_runs
from simllm.sim.world.recorder import StepRun

from .handmade import TERMS, hand_made_steps, make_step


@st.composite
def recorded_runs(draw: st.DrawFn) -> list[StepRun]:
    """Runs of two replicas, in any order, each replica's steps numbered without a gap."""
    runs, next_step, now = [], [0, 0], [0.0, 0.0]
    for _ in range(draw(st.integers(0, 8))):
        replica, num_steps = draw(st.integers(0, 1)), draw(st.integers(1, 40))
        base, slope = draw(st.floats(1e-3, 1.0)), draw(st.floats(0.0, 1e-3))
        growth = tuple(draw(st.lists(st.integers(0, 3), max_size=17)))
        line = DecodeLine(base, slope, num_steps, (base / 4, base * 3 / 4), (slope, 0.0), "hbm")
        counts = {"num_decodes": draw(st.integers(1, 9)), "sum_decode_context": 100, "kv_blocks_used": 7}
        run = make_step(next_step[replica], now[replica], base, replica=replica, **counts)
        runs.append(run._replace(num_steps=num_steps, line=line, block_growth=growth))
        next_step[replica] += num_steps
        now[replica] += num_steps * base + slope * num_steps * (num_steps - 1) / 2
    return runs


def _one_by_one(runs: list[StepRun]) -> list[tuple[float, ...]]:
    """Walks the steps as a plain run would have recorded them."""
    rows = []
    for run in sorted(runs, key=lambda run: (run.replica, run.first_step)):
        started_at, blocks = run.started_at, run.kv_blocks_used
        for i in range(run.num_steps):
            if i and run.block_growth:
                blocks += run.block_growth[(i - 1) % len(run.block_growth)]
            duration = run.line.base_s + i * run.line.slope_s
            context = run.sum_decode_context + i * run.num_decodes
            term = run.line.base_terms[0] + i * run.line.slope_terms[0]
            rows.append((run.replica, run.first_step + i, started_at, duration, context, blocks, term))
            started_at += duration
    return rows


def _columns(rows: StepRows) -> np.ndarray:
    columns = (rows.count("replica"), rows.step, rows.started_at, rows.duration_s)
    return np.stack([*columns, rows.sum_decode_context, rows.kv_blocks_used, rows.term_s(0)], axis=1)


@given(runs=recorded_runs(), chunk=st.integers(1, 50))
def test_expansion_equals_walking_step_by_step_whatever_the_chunk(runs: list[StepRun], chunk: int) -> None:
    expanded = np.concatenate([_columns(rows) for rows in step_runs(runs, 2).chunks(chunk)])
    expected = np.array(_one_by_one(runs)).reshape(-1, 7)
    np.testing.assert_allclose(expanded, expected, rtol=1e-12, atol=1e-12)


@given(runs=recorded_runs())
def test_most_blocks_in_use_are_the_largest_of_all_step_rows(runs: list[StepRun]) -> None:
    columns = step_runs(runs, 2)
    for replica in (0, 1):
        own = columns.of_replica(replica)
        assert columns.max_kv_blocks_used(own) == columns.expand(own).kv_blocks_used.max(initial=0)


def test_a_leap_of_four_steps_expands_to_four_rows(result: Result) -> None:
    # base 100 ms, 20 ms longer each step; context 65 + i; growth (0, 1) adds a block with steps 2 and 4 on
    leap = result.steps.iloc[4:]
    assert leap["step"].tolist() == [4, 5, 6, 7]
    assert leap["started_at"].tolist() == pytest.approx([1.5, 1.6, 1.72, 1.86])
    assert leap["duration_ms"].tolist() == pytest.approx([100, 120, 140, 160])
    assert leap["sum_decode_context_tokens"].tolist() == [65, 66, 67, 68]
    assert leap["kv_blocks_used"].tolist() == [5, 5, 6, 6]
    assert leap["gemm_ms"].tolist() == pytest.approx([75, 90, 105, 120])


def test_preemptions_of_a_run_belong_to_its_first_step(result: Result) -> None:
    assert result.steps["num_preempted"].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_terms_sum_to_the_duration_of_each_step(result: Result) -> None:
    steps = result.steps
    total = steps[[f"{term}_ms" for term in TERMS]].sum(axis=1)
    np.testing.assert_allclose(total, steps["duration_ms"], rtol=1e-12)


def test_each_step_starts_where_the_one_before_in_its_leap_ended(result: Result) -> None:
    leap = result.steps.iloc[4:]
    ended_at = leap["started_at"] + leap["duration_ms"] / 1e3
    np.testing.assert_allclose(leap["started_at"].iloc[1:], ended_at.iloc[:-1], rtol=1e-12)


def test_rows_come_by_replica_and_step_however_they_were_recorded() -> None:
    recorded = list(reversed(hand_made_steps()))
    np.testing.assert_array_equal(
        _columns(step_runs(recorded, 2).expand(slice(None))),
        _columns(step_runs(hand_made_steps(), 2).expand(slice(None))),
    )
