"""Recorded steps played again through pipeline stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from simllm.hwmodels.step import Chunk
from simllm.sim.deployment import deploy
from simllm.sim.pool import PoolConfig
from simllm.sim.validate.emulate import emulate
from simllm.sim.validate.recorded_steps import RecordedStep
from simllm.sim.validate.step_times import shape_of


def prompt(scheduled_at: float, ended_at: float, *, is_busy: bool) -> RecordedStep:
    return RecordedStep(scheduled_at, ended_at, 0.1, is_busy, 0, 0, (Chunk(2048, 0),))


def test_steps_that_return_their_tokens_follow_one_another() -> None:
    pool = PoolConfig.model_validate({"model": "llama-3.1-8b", "device": "h100-sxm", "parallel": {"pp": 2}})
    deployment = deploy(pool, Path())
    steps = [prompt(0.0, 0.1, is_busy=False), prompt(0.001, 0.2, is_busy=True)]
    handled = emulate(
        steps,
        deployment.step_model,
        deployment.graphs,
        power=None,
        depth=2,
        launches_in_engine=False,
        schedule_s=0.01,
    )
    alone_s = deployment.step_model.predict(shape_of(steps[0], deployment.graphs)).duration_s
    # The first prompt waits for its own scheduling. Of the second one the launches are done by then.
    assert handled[0] == pytest.approx(0.01 + alone_s, rel=1e-3)
    assert handled[1] - handled[0] == pytest.approx(alone_s, rel=1e-2)
