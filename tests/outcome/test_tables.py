"""The tables: columns, nulls, and KV blocks over time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from simllm.errors import SimllmError
from simllm.sim.outcome import tables
from simllm.sim.outcome.meta import Slo
from simllm.sim.outcome.results import Result
from simllm.sim.outcome.rows import request_rows
from simllm.sim.outcome.steps import step_runs
from simllm.sim.world.recorder import Status

from .handmade import make_demand, make_meta, make_recorder, make_totals


def test_request_rows_hold_instants_and_the_durations_between_them(result: Result) -> None:
    row = result.requests.iloc[2]
    assert (row["arrived_at"], row["first_token_at"], row["finished_at"]) == (1.0, 1.5, 2.02)
    assert (row["ttft_ms"], row["tpot_ms"], row["e2el_ms"]) == pytest.approx((500, 130, 1020))
    assert (row["cached_tokens"], row["status"], row["model"]) == (16, "finished", "tiny")


def test_what_did_not_happen_is_null(result: Result) -> None:
    requests = result.requests
    assert requests["tpot_ms"].isna().tolist() == [False, True, False, True]
    rejected = requests.iloc[3]
    assert (rejected["status"], rejected["reason"]) == ("rejected", "exceeds_kv_cache")
    assert rejected[["scheduled_at", "ttft_ms", "e2el_ms"]].isna().all()
    assert (rejected["requested_output_tokens"], rejected["output_tokens"]) == (9, 0)
    assert requests["session_id"].isna().all()


def test_objective_is_met_missed_or_undecided(build: Callable[..., Result]) -> None:
    recorder = make_recorder()
    recorder.status[1] = Status.RUNNING
    result = Result(recorder, make_demand(), make_meta(Slo(ttft_ms=450)))
    assert result.requests["slo_met"].tolist() == [True, None, False, False]
    assert build().requests["slo_met"].isna().all()


def test_first_output_is_the_first_token_unless_the_request_reasons() -> None:
    # r2: 1.5, 1.60, then 1.72
    recorder = make_recorder()
    demand = replace(make_demand(), reasoning_tokens=np.array([0, 0, 2, 0]))
    requests = Result(recorder, demand, make_meta()).requests
    assert requests["ttfo_ms"].tolist() == pytest.approx([400, 300, 720, math.nan], nan_ok=True)


def test_optional_columns_of_the_demand_are_carried_over() -> None:
    demand = replace(
        make_demand(),
        session_id=np.array([7, -1, 7, 8]),
        turn=np.array([0, 0, 1, 0]),
        image_tokens=np.array([0, 4, 0, 0]),
    )
    requests = Result(make_recorder(), demand, make_meta()).requests
    assert requests["session_id"].tolist() == pytest.approx([7, math.nan, 7, 8], nan_ok=True)
    assert requests["turn"].tolist() == [0, 0, 1, 0]
    assert requests["image_tokens"].tolist() == [0, 4, 0, 0]


def test_blocks_in_use_are_those_of_the_running_step_and_none_when_idle(result: Result) -> None:
    # steps hold 2 from 0.0, 3 from 0.4, 4 from 0.5 to 0.8; idle until 1.0; the leap's 6th block from 1.72 on
    kv = result.kv.set_index(result.kv["sampled_at"].round(6))
    at = [0.2, 0.45, 0.7, 0.9, 1.2, 1.55, 1.8]
    assert kv.loc[at, "used_blocks"].tolist() == [2, 3, 4, 0, 4, 5, 6]
    assert (kv["used_blocks"] + kv["free_blocks"] == 100).all()


@pytest.mark.parametrize("ended_at", [0.0, 1e-3, 0.999, 1.0, 2.02, 999.0, 1000.0, 3600.0, 1e6])
def test_a_replica_gives_a_thousand_samples_at_most(ended_at: float) -> None:
    samples = tables.kv_table(step_runs([], 2), [make_totals()], ended_at).read_all()
    assert 1 <= len(samples) <= 1_000
    assert ended_at == 0 or len(samples) >= 200


def test_batches_put_together_are_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(num_rows: int) -> tuple[pa.Table, pa.Table]:
        monkeypatch.setattr(tables, "ROWS_PER_BATCH", num_rows)
        rows, reasons = request_rows(make_recorder(), make_demand())
        runs = step_runs(make_recorder().steps or [], 2)
        meta = make_meta()
        return tables.request_table(rows, reasons, meta).read_all(), tables.step_table(runs, meta).read_all()

    for whole, parts in zip(read(1000), read(1), strict=True):
        assert parts.combine_chunks().equals(whole.combine_chunks())


def test_tables_of_steps_that_were_not_recorded_say_so(build: Callable[..., Result]) -> None:
    bare = build(record_steps=False)
    for table in ("steps", "kv"):
        with pytest.raises(SimllmError, match="steps were not recorded"):
            getattr(bare, table)
