"""A run with leaps gives the rows of a plain run, whatever the scenario."""

from __future__ import annotations

import math

import numpy as np
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.hwmodels.power import PowerLimit
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import ContentRun
from simllm.sim.workload.demand import Demand

REQUESTS = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 3), st.sampled_from([0.0, 0.5])), st.integers(1, 90), st.integers(1, 60)
    ),
    min_size=1,
    max_size=25,
)
SPECS = st.builds(
    VllmV1Spec,
    max_num_seqs=st.sampled_from([1, 3, 8]),
    max_num_batched_tokens=st.sampled_from([8, 24, 64]),
    max_model_len=st.sampled_from([None, 100]),
    long_prefill_token_threshold=st.sampled_from([0, 0, 5]),
    scheduler_reserve_full_isl=st.booleans(),
    watermark=st.sampled_from([0.0, 0.1]),
    async_scheduling=st.booleans(),
)
# Costs that no sum of arrival times can equal: where an arrival and the end of a step fall on the same
# instant but for rounding, either order is right, and the two runs may differ in it.
ODD_S = math.pi / 300
MODELS = st.sampled_from(
    [
        ToyStepModel(base_s=ODD_S),
        ToyStepModel(base_s=ODD_S, token_s=0.0007, decode_s=0.0003, context_s=1.3e-5),
        ToyStepModel(base_s=ODD_S, token_s=0.0007, context_s=2.1e-5, knot=150),
        ToyStepModel(base_s=ODD_S, token_s=0.0007, context_s=1.3e-5, launch_s=math.pi / 130),
        ToyStepModel(base_s=ODD_S, token_s=0.0007, context_s=1.3e-5, launch_s=math.pi / 250, limited=0.3),
    ]
)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    demand = make_demand(sorted(draw(REQUESTS)), draw(st.sampled_from([None, None, 3])))
    if draw(st.booleans()):
        demand.contents = [
            split_content(int(tokens), draw(st.integers(0, 3)), draw(st.integers(0, 40)))
            for tokens in demand.prompt_tokens
        ]
    return demand


def split_content(num_tokens: int, family: int, shared: int) -> tuple[ContentRun, ...]:
    """A prompt that begins with up to `shared` tokens of a family's text and goes on with its own."""
    shared = min(shared, num_tokens)
    runs = [ContentRun(family, shared)] if shared else []
    if num_tokens > shared:
        runs.append(ContentRun(100 + family * 3 + num_tokens % 3, num_tokens - shared))
    return tuple(runs)


@settings(max_examples=250, deadline=None)
@given(
    demand=demands(),
    spec=SPECS,
    model=MODELS,
    num_blocks=st.sampled_from([12, 25, 40, 400]),
    caches=st.booleans(),
    num_replicas=st.sampled_from([1, 1, 2]),
    frontend_s=st.sampled_from([(0.0, 0.0), (0.0013, 0.0004)]),
    launches_in_thread=st.booleans(),
)
def test_a_leaping_run_gives_the_rows_of_a_plain_run(
    demand: Demand,
    spec: VllmV1Spec,
    model: ToyStepModel,
    num_blocks: int,
    caches: bool,
    num_replicas: int,
    frontend_s: tuple[float, float],
    launches_in_thread: bool,
) -> None:
    plain, leaping = (
        play(
            demand,
            spec=spec,
            model=model,
            num_blocks=num_blocks,
            caches=caches,
            num_replicas=num_replicas,
            frontend_s=frontend_s,
            power=PowerLimit(0.77, 0.12, 0.05, 0.24, 0.4),
            launches_in_thread=launches_in_thread,
            schedule_s=0.0017,
            leaps=leaps,
            checks_blocks=True,
        )[0]
        for leaps in (False, True)
    )
    np.testing.assert_allclose(request_rows(leaping), request_rows(plain), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(step_rows(leaping), step_rows(plain), rtol=1e-9, atol=1e-9)
    assert leaping.gaps.count == plain.gaps.count
    np.testing.assert_allclose(leaping.gaps.mean_s(), plain.gaps.mean_s(), rtol=1e-9)
    assert leaping.reasons == plain.reasons


def test_a_step_that_preempts_does_not_count_who_came_after_its_decision() -> None:
    # Step 38 is decided when step 36 ends and must preempt; the last request comes while step 37 runs.
    at, prompts, outputs = [0, 0, 0.125, 0.5, 0.5, 0.578125], [32, 56, 21, 14, 14, 1], [38, 18, 29, 4, 4, 1]
    demand = make_demand(list(zip(at, prompts, outputs, strict=True)))
    spec = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, scheduler_reserve_full_isl=False)
    model = ToyStepModel(base_s=ODD_S, token_s=0.0007, decode_s=0.0003, context_s=1.3e-5)
    plain, leaping = (
        step_rows(play(demand, spec=spec, model=model, num_blocks=40, leaps=leaps)[0])
        for leaps in (False, True)
    )
    np.testing.assert_allclose(leaping, plain, rtol=1e-9, atol=1e-9)
    assert plain[37, 10:12].tolist() == [1, 1]  # waiting: the one preempted
