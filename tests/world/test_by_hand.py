"""Small runs whose every instant is worked out beside the expectation."""

from __future__ import annotations

import pytest
from harness import make_demand, play
from toys import ToyStepModel

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.world.recorder import Recorder

SYNC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False)
ASYNC = SYNC.model_copy(update={"async_scheduling": True})
BOTH = pytest.mark.parametrize("spec", [SYNC, ASYNC], ids=["sync", "async"])
# 10 ms a step and 1 ms for each token of a prompt.
MODEL = ToyStepModel(base_s=0.010, token_s=0.001)


def times(recorder: Recorder) -> list[tuple[float, float, float]]:
    """Returns (scheduled, first token, finished) of each request [ms], rounded to 1e-12 s."""
    columns = (recorder.scheduled_at, recorder.first_token_at, recorder.finished_at)
    return [tuple(round(1000 * at, 9) for at in row) for row in zip(*columns, strict=True)]


@BOTH
@pytest.mark.parametrize("leaps", [False, True])
def test_a_request_alone_takes_the_sum_of_its_steps(spec: VllmV1Spec, leaps: bool) -> None:
    # Prompt 100 = 64 + 36 tokens, then three decodes at contexts 101, 102 and 103. The request is on its way
    # for 2 ms before and the token for 3 ms after.
    model = ToyStepModel(base_s=0.010, token_s=0.0007, decode_s=0.0003, context_s=0.00001)
    chunks_s = 0.010 + 64 * 0.0007 + 0.010 + 36 * 0.0007
    decodes_s = 3 * 0.0103 + (101 + 102 + 103) * 0.00001
    recorder, _ = play(
        make_demand([(1.5, 100, 4)]), spec=spec, model=model, leaps=leaps, frontend_s=(0.002, 0.003)
    )
    assert recorder.scheduled_at[0] == pytest.approx(1.5 + 0.002, abs=1e-12)
    assert recorder.first_token_at[0] == pytest.approx(1.5 + 0.002 + chunks_s + 0.003, abs=1e-12)
    assert recorder.finished_at[0] == pytest.approx(1.5 + 0.002 + chunks_s + decodes_s + 0.003, abs=1e-12)


def test_two_requests_share_steps() -> None:
    # A: 10 tokens, 3 answered. B: 20 tokens, 2 answered, comes at 5 ms.
    #  0 - 20  A's prompt             10 + 10
    # 20 - 50  A decodes, B's prompt  10 + 20
    # 50 - 60  A and B decode
    recorder, _ = play(make_demand([(0, 10, 3), (0.005, 20, 2)]), spec=SYNC, model=MODEL)
    assert times(recorder) == [(0, 20, 60), (20, 50, 60)]


def test_with_asynchronous_scheduling_a_new_request_waits_for_one_more_step() -> None:
    #  0 - 20  A's prompt, decided at 0
    # 20 - 30  A decodes, decided at 0, before B comes at 5
    # 30 - 60  A decodes, B's prompt, decided at 20
    # 60 - 70  B decodes, decided at 30
    recorder, _ = play(make_demand([(0, 10, 3), (0.005, 20, 2)]), spec=ASYNC, model=MODEL)
    assert times(recorder) == [(0, 20, 60), (20, 60, 70)]


@BOTH
def test_a_lone_slot_is_free_when_the_answer_before_is_complete(spec: VllmV1Spec) -> None:
    # 0 - 20 A's prompt, 20 - 40 two decodes, then B.
    one_slot = spec.model_copy(update={"max_num_seqs": 1})
    recorder, _ = play(make_demand([(0, 10, 3), (0.001, 5, 1)]), spec=one_slot, model=MODEL)
    assert times(recorder)[1] == (40, 55, 55)


@pytest.mark.parametrize(("spec", "started_ms"), [(SYNC, 40), (ASYNC, 50)], ids=["sync", "async"])
def test_a_finished_request_keeps_its_slot_for_one_step_more_if_asynchronous(
    spec: VllmV1Spec, started_ms: int
) -> None:
    # 0 - 30 prompts of A and B, 30 - 40 both decode and A is complete. C gets A's slot in the next step that
    # is decided after 40: the one that starts then, or the one after it if that was decided at 30.
    two_slots = spec.model_copy(update={"max_num_seqs": 2})
    recorder, _ = play(make_demand([(0, 10, 2), (0, 10, 9), (0.001, 5, 1)]), spec=two_slots, model=MODEL)
    assert times(recorder)[2] == (40, started_ms + 15, started_ms + 15)


@BOTH
def test_a_preempted_request_computes_its_prompt_and_answer_again(spec: VllmV1Spec) -> None:
    # 4 blocks of 4 tokens, A and B with 4 + 6 tokens each, steps of 10 ms. Until 50 both have 5 tokens of
    # their answer and hold 2 blocks. In the step from 50 A needs a third: B is preempted, nobody admitted.
    # A is complete at 60; B computes 4 + 5 tokens, 8 of them again, and has its last token at 70.
    demand = make_demand([(0, 4, 6), (0, 4, 6)])
    recorder, _ = play(demand, spec=spec, model=ToyStepModel(base_s=0.010), num_blocks=4)
    assert times(recorder) == [(0, 10, 60), (0, 10, 70)]
    assert (list(recorder.num_preemptions), list(recorder.recomputed_tokens)) == ([0, 1], [0, 8])
    assert recorder.gaps.count == 10
    assert recorder.gaps.max_s() == pytest.approx(0.020, abs=1e-12)
    assert recorder.gaps.mean_s() == pytest.approx((9 * 0.010 + 0.020) / 10, abs=1e-12)


def test_an_arrival_at_the_end_of_a_step_is_seen_by_the_next() -> None:
    # Powers of two are exact: the step ends at 0.25 s, just when B comes.
    recorder, _ = play(make_demand([(0, 4, 2), (0.25, 4, 1)]), spec=SYNC, model=ToyStepModel(base_s=0.25))
    assert list(recorder.scheduled_at) == [0, 0.25]
    assert list(recorder.first_token_at) == [0.25, 0.5]


@BOTH
def test_an_idle_engine_starts_with_the_next_arrival(spec: VllmV1Spec) -> None:
    recorder, engines = play(make_demand([(0, 10, 1), (7, 10, 1)]), spec=spec, model=MODEL)
    assert times(recorder) == [(0, 20, 20), (7000, 7020, 7020)]
    assert engines[0].journal.totals.busy_s() == pytest.approx(0.040, abs=1e-12)


@BOTH
def test_a_client_of_a_closed_loop_sends_when_it_has_its_answer(spec: VllmV1Spec) -> None:
    # 1 ms in, 10 + 5 ms prompt, 2 ms out: an answer takes 18 ms; the next is sent at once.
    demand = make_demand([(0, 5, 1)] * 3, num_clients=1)
    recorder, _ = play(demand, spec=spec, model=MODEL, frontend_s=(0.001, 0.002))
    assert [round(1000 * at, 9) for at in recorder.arrived_at] == [0, 18, 36]
    assert [round(1000 * at, 9) for at in recorder.finished_at] == [18, 36, 54]


def test_a_rejected_request_frees_its_client() -> None:
    demand = make_demand([(0, 1000, 1), (0, 5, 1)], num_clients=1)
    recorder, _ = play(demand, spec=SYNC, model=MODEL, num_blocks=8)
    assert recorder.reasons == {0: "exceeds_kv_cache"}
    assert times(recorder)[1] == (0, 15, 15)


def test_requests_go_to_the_replica_with_the_fewest() -> None:
    # A goes to the first replica, B to the second, C to the first, which is done by then.
    recorder, _ = play(
        make_demand([(0, 5, 1), (0.001, 5, 9), (0.060, 5, 1)]), spec=SYNC, model=MODEL, num_replicas=2
    )
    assert list(recorder.replica) == [0, 1, 0]
