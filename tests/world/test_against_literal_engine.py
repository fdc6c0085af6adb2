"""The engine with its leaps and sums, against one that goes token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import play, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from policy.reference import ReferenceScheduler
from toys import ToyStepModel

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.workload.demand import Demand

from .drawn import SETTINGS, demands
from .literal_engine import LiteralEngine

BLOCK_SIZE, MAX_LEN = 4, 1 << 20


@settings(max_examples=250, deadline=None)
@given(demand=demands(), setting=SETTINGS)
def test_every_request_and_step_has_its_instants(demand: Demand, setting: dict[str, Any]) -> None:
    demand.contents = None  # caches are compared block by block elsewhere
    setting = {**setting, "num_replicas": 1, "num_blocks": max(setting["num_blocks"], 45)}
    spec, (in_s, out_s) = setting["spec"], setting["frontend_s"]
    recorder, _ = play(demand, **setting)
    engine = literal_engine(demand, setting)
    engine.play()
    fates = engine.fates
    for column, expected in (
        (recorder.arrived_at, [fate.arrived_at for fate in fates]),
        (recorder.scheduled_at, [fate.scheduled_at for fate in fates]),
        (recorder.first_token_at, [fate.token_at[0] + out_s for fate in fates]),
        (recorder.finished_at, [fate.token_at[-1] + out_s for fate in fates]),
        (recorder.output_tokens, [len(fate.token_at) for fate in fates]),
    ):
        np.testing.assert_allclose(column, expected, rtol=1e-9, atol=1e-9)
