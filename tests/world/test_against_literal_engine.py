"""The engine with its leaps and sums, against one that goes step by step and token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import play, step_rows
from hypothesis import given, settings
from policy.reference import ReferenceScheduler

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.workload.demand import Demand

from .drawn import SETTINGS, demands
from .literal_engine import LiteralEngine


@settings(max_examples=250, deadline=None)
@given(demand=demands(), setting=SETTINGS)
def test_every_request_and_every_step_has_its_instants(demand: Demand, setting: dict[str, Any]) -> None:
    demand.contents = None  # prefix caches are compared elsewhere, block by block
    setting = on_one_replica_that_serves_all(setting)
    recorder, _ = play(demand, **setting)
    engine = literal_engine(demand, setting)
    engine.play()
    out_s = setting["frontend_s"][1]
    for column, expected in (
        (recorder.arrived_at, [fate.arrived_at for fate in engine.fates]),
        (recorder.scheduled_at, [fate.scheduled_at for fate in engine.fates]),
        (recorder.first_token_at, [fate.token_at[0] + out_s for fate in engine.fates]),
        (recorder.finished_at, [fate.token_at[-1] + out_s for fate in engine.fates]),
        (recorder.output_tokens, [len(fate.token_at) for fate in engine.fates]),
    ):
        np.testing.assert_allclose(column, expected, rtol=1e-9, atol=1e-9)
    rows = step_rows(recorder)
    np.testing.assert_allclose(rows[:, 2:4], [step[:2] for step in engine.steps], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(rows[:, 4] + rows[:, 5], [step[2] for step in engine.steps])
    gaps = np.concatenate([np.diff(fate.token_at) for fate in engine.fates])
    assert recorder.gaps.count == len(gaps)
    if len(gaps):
        pooled = (recorder.gaps.mean_s(), recorder.gaps.std_s(), recorder.gaps.max_s())
        np.testing.assert_allclose(pooled, (gaps.mean(), gaps.std(), gaps.max()), rtol=1e-6, atol=1e-9)


def on_one_replica_that_serves_all(setting: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings such that no request is rejected: 120 + 50 - 1 tokens fit 43 blocks of 4."""
    spec: VllmV1Spec = setting["spec"]
    limit = None if spec.max_model_len is None else 130
    spec = spec.model_copy(update={"max_model_len": limit, "enable_chunked_prefill": True})
    return {**setting, "spec": spec, "num_replicas": 1, "num_blocks": max(setting["num_blocks"], 43)}


def literal_engine(demand: Demand, setting: dict[str, Any]) -> LiteralEngine:
    """Returns the engine that goes token by token, set up alike."""
    spec: VllmV1Spec = setting["spec"]
    scheduler = ReferenceScheduler(
        spec,
        num_blocks=setting["num_blocks"],
        block_size=4,
        caches=setting["caches"],
        max_model_len=spec.max_model_len or 1 << 20,
    )
    return LiteralEngine(demand, scheduler, setting["model"], setting["frontend_s"])
