"""Classes of runs, and how far off a prediction may be in each: the goals that simllm sets itself.

A class follows from the run alone: its load, its model, and whether the engine's constants were fitted on
that model and number of GPUs. The first class whose rule holds is the run's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...hwmodels.model import ModelSpec

# What `vllm bench serve` calls them, in the order of the tables.
GOAL_METRICS = (
    "output_throughput",
    "tpot_mean",
    "e2el_mean",
    "ttft_mean",
    "ttft_p50",
    "tpot_p99",
    "ttft_p99",
)
# The same in every class: the scheduler's counts.
COUNT_GOALS = {"num_preemptions": 0.10, "prefix_hit_tokens": 0.01}
# A 99th percentile of fewer requests is its worst one or two.
MIN_REQUESTS_FOR_P99 = 200
# Models and numbers of GPUs whose measured steps and runs the engine's constants were fitted on.
FITTED_ON = frozenset(
    {
        ("llama-3.1-8b", 1),
        ("llama-3.1-8b", 2),
        ("qwen3-32b", 1),
        ("qwen3-32b", 2),
        ("qwen3-30b-a3b", 1),
    }
)


@dataclass(frozen=True, slots=True)
class GoalClass:
    """A class of runs: its name, its rule in words, and the mean absolute error to stay below by metric."""

    name: str
    rule: str
    goals: dict[str, float]


NEAR_SATURATION = GoalClass(
    "near saturation, KV pressure",
    "an open loop that asks for 90 % of the capacity or more, or any preemption on either side",
    {"output_throughput": 0.025, "tpot_mean": 0.045, "e2el_mean": 0.10},
)
MOE = GoalClass(
    "MoE",
    "a model with routed experts",
    {
        "output_throughput": 0.04,
        "tpot_mean": 0.05,
        "e2el_mean": 0.05,
        "ttft_mean": 0.12,
        "ttft_p50": 0.12,
        "tpot_p99": 0.10,
    },
)
UNMEASURED = GoalClass(
    "dense, never measured",
    "a dense model, or GPUs or pipeline stages for it, that the engine's constants were not fitted on",
    {
        "output_throughput": 0.03,
        "tpot_mean": 0.04,
        "e2el_mean": 0.04,
        "ttft_mean": 0.08,
        "ttft_p50": 0.08,
        "tpot_p99": 0.08,
    },
)
OPEN = GoalClass(
    "open loop below 90 % of capacity",
    "any other open loop",
    {
        "tpot_mean": 0.02,
        "e2el_mean": 0.02,
        "ttft_mean": 0.05,
        "ttft_p50": 0.05,
        "tpot_p99": 0.04,
        "ttft_p99": 0.10,
    },
)
CLOSED = GoalClass(
    "closed loop, dense, measured GPUs",
    "any other closed loop",
    {"output_throughput": 0.01, "tpot_mean": 0.02, "e2el_mean": 0.02, "ttft_mean": 0.04, "ttft_p50": 0.04},
)
CLASSES = (CLOSED, OPEN, UNMEASURED, MOE, NEAR_SATURATION)


def classify(
    model: ModelSpec,
    num_gpus: int,
    *,
    has_stages: bool,
    is_closed: bool,
    is_near: bool,
    has_preempted: bool,
) -> GoalClass:
    """Returns the class of a run; `is_near`: its load is at 90 % of the capacity or more.

    has_stages: its layers lie on several pipeline stages.
    """
    if is_near or has_preempted:
        return NEAR_SATURATION
    if model.has_moe:
        return MOE
    if has_stages or (model.name, num_gpus) not in FITTED_ON:
        return UNMEASURED
    return CLOSED if is_closed else OPEN


def mean_absolute(errors: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of the absolute errors by metric, over those that have it."""
    names = {name: None for run in errors for name in run}  # in the order of appearance
    return {name: float(np.mean([abs(run[name]) for run in errors if name in run])) for name in names}
