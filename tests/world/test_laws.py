"""What holds in every run, whatever is asked and however little memory there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given, settings

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.workload.demand import Demand
from simllm.sim.world.engine import Engine
from simllm.sim.world.recorder import Recorder, Status

from .drawn import SETTINGS, demands

SYNC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False)
ASYNC = SYNC.model_copy(update={"async_scheduling": True})
BOTH = pytest.mark.parametrize("spec", [SYNC, ASYNC], ids=["sync", "async"])


@settings(max_examples=200, deadline=None)
@given(demand=demands(), setting=SETTINGS)
def test_the_laws_hold(demand: Demand, setting: dict[str, Any]) -> None:
    # Blocks used and free add up to all blocks after every event: `checks_blocks`.
    recorder, engines = play(demand, **setting, checks_blocks=True)
    finished = np.asarray(recorder.status) == Status.FINISHED
    check_conservation(recorder, engines, finished)
    check_order(recorder, finished, setting["frontend_s"][1])
    check_tokens(recorder, engines, demand, finished, setting["spec"])
    check_steps(recorder, engines, setting["spec"])


def check_conservation(recorder: Recorder, engines: list[Engine], finished: np.ndarray) -> None:
    """Everyone who came has finished or was rejected for a reason; nobody waits, runs or holds blocks."""
    rejected = np.asarray(recorder.status) == Status.REJECTED
    assert finished.sum() + rejected.sum() == recorder.num_requests
    assert sorted(recorder.reasons) == list(np.flatnonzero(rejected))
    for engine in engines:
        scheduler = engine.scheduler
        assert (scheduler.num_waiting, scheduler.num_running) == (0, 0)
        assert scheduler.kv.num_free == scheduler.kv.num_blocks


def check_order(recorder: Recorder, finished: np.ndarray, frontend_out_s: float) -> None:
    """A request arrives, is scheduled, has its first token and its last, in this order."""
    columns = (recorder.arrived_at, recorder.scheduled_at, recorder.first_token_at, recorder.finished_at)
    arrived_at, scheduled_at, first_token_at, finished_at = (np.asarray(c)[finished] for c in columns)
    assert (arrived_at <= scheduled_at).all()
    assert (scheduled_at < first_token_at - frontend_out_s).all()
    assert (first_token_at <= finished_at).all(), "TTFT <= E2EL"
    # The gaps between tokens are what lies between the first and the last, none of them empty.
    assert recorder.gaps.count == (np.asarray(recorder.output_tokens)[finished] - 1).sum()
    if recorder.gaps.count:
        gaps_s = recorder.gaps.mean_s() * recorder.gaps.count
        assert gaps_s == pytest.approx((finished_at - first_token_at).sum(), rel=1e-9)
        assert recorder.gaps.percentile_s(0) > 0.01


def check_tokens(
    recorder: Recorder, engines: list[Engine], demand: Demand, finished: np.ndarray, spec: VllmV1Spec
) -> None:
    """Every token asked for is sampled once, and what was computed is accounted for."""
    room = (spec.max_model_len or 1 << 20) - demand.prompt_tokens
    answered = np.asarray(recorder.output_tokens)[finished]
    assert (answered == np.minimum(demand.output_tokens, room)[finished]).all()
    totals = [engine.journal.totals for engine in engines]
    assert sum(total.num_sampled for total in totals) == answered.sum()
    saved = np.asarray(recorder.cached_tokens)[finished]
    again = np.asarray(recorder.recomputed_tokens)[finished]
    accounted = (demand.prompt_tokens[finished] + answered - 1 - saved + again).sum()
    computed = sum(total.num_tokens for total in totals)
    # A request that resumes may hit what others computed meanwhile; vLLM counts the first hit only.
    assert computed == accounted if demand.contents is None else computed <= accounted
    stats = [engine.scheduler.kv.stats for engine in engines]
    assert sum(stat.hit_tokens for stat in stats) == saved.sum()
    assert all(stat.hit_tokens + sum(stat.misses.values()) == stat.query_tokens for stat in stats)


def check_steps(recorder: Recorder, engines: list[Engine], spec: VllmV1Spec) -> None:
    """A replica's steps follow one another without overlap and stay within every budget."""
    rows = step_rows(recorder)
    for engine in engines:
        mine = rows[rows[:, 0] == engine.replica] if len(rows) else rows
        _, number, started_at, duration_s, prefill, decodes, _, padded, _, running, _, _, used = (
            mine.T if len(mine) else np.zeros((13, 0))
        )
        assert (number == np.arange(1, len(mine) + 1)).all()
        assert (started_at[1:] >= (started_at + duration_s)[:-1] - 1e-9).all()
        assert (prefill + decodes <= spec.max_num_batched_tokens).all()
        assert (prefill + decodes >= 1).all()
        assert (padded >= prefill + decodes).all()
        assert (running <= spec.max_num_seqs).all()
        assert ((used >= 1) & (used <= engine.scheduler.kv.num_blocks)).all()
        totals = engine.journal.totals
        assert totals.busy_s() == pytest.approx(duration_s.sum(), rel=1e-9)
        assert sum(totals.term_s().values()) == pytest.approx(duration_s.sum(), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(demand=demands(), setting=SETTINGS)
def test_the_same_run_gives_the_same_rows(demand: Demand, setting: dict[str, Any]) -> None:
    one, two = (play(demand, **setting)[0] for _ in range(2))
    np.testing.assert_array_equal(request_rows(one), request_rows(two))
    np.testing.assert_array_equal(step_rows(one), step_rows(two))


@BOTH
@pytest.mark.parametrize("caches", [False, True])
def test_a_cache_full_of_long_answers_preempts_and_still_ends(spec: VllmV1Spec, caches: bool) -> None:
    # 8 slots want 210 tokens each, 1,680 in all, of a cache that holds 256.
    demand = make_demand([(0.01 * i, 10, 200) for i in range(30)])
    recorder, _ = play(demand, spec=spec, caches=caches, checks_blocks=True)
    assert all(status == Status.FINISHED for status in recorder.status)
    assert sum(recorder.num_preemptions) > 30
    assert sum(recorder.recomputed_tokens) > 0


@BOTH
@pytest.mark.parametrize("num_blocks", [3, 4, 29])
def test_a_request_as_large_as_the_cache_is_served_and_a_larger_one_is_not(
    spec: VllmV1Spec, num_blocks: int
) -> None:
    # Blocks of 4 tokens; the KV of the last token is never computed: prompt + 10 - 1 tokens.
    fits = 4 * num_blocks - 9
    demand = make_demand([(0, fits, 10), (0, fits + 1, 10), (0, 1, 1)])
    recorder, _ = play(demand, spec=spec, num_blocks=num_blocks, checks_blocks=True)
    assert recorder.reasons == {1: "exceeds_kv_cache"}
    assert list(recorder.output_tokens) == [10, 0, 1]


def test_a_prompt_beyond_the_context_limit_is_rejected_and_a_long_answer_cut() -> None:
    spec = SYNC.model_copy(update={"max_model_len": 50})
    recorder, _ = play(make_demand([(0, 50, 1), (0, 40, 100)]), spec=spec)
    assert recorder.reasons == {0: "prompt_exceeds_max_model_len"}
    assert list(recorder.output_tokens) == [0, 10]


def test_more_memory_never_makes_more_preemptions_here() -> None:
    demand = make_demand([(0.01 * i, 10, 100) for i in range(20)])
    counts = [
        sum(play(demand, spec=SYNC, num_blocks=blocks)[0].num_preemptions) for blocks in (40, 80, 160, 240)
    ]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0] > 0, counts[-1]) == (True, 0)
