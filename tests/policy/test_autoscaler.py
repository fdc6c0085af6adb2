"""Autoscaler decisions by Kubernetes' rules, each worked out by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from simllm.sim.policy.autoscaler import Autoscaler, AutoscalerSpec


def scaler(**fields: object) -> Autoscaler:
    given = {"target": 10, "max_replicas": 20, "scale_down_stabilization_s": 0}
    return Autoscaler(AutoscalerSpec.model_validate({**given, **fields}))


@pytest.mark.parametrize(
    ("num_current", "metric", "desired"),
    [
        (2, 40.0, 4),  # 2 x 40 / (2 x 10)
        (2, 25.0, 3),  # 2.5, rounded up
        (4, 43.0, 4),  # a ratio of 1.075 is within the tolerance of 0.1
        (4, 45.0, 5),  # 1.125 is not
        (5, 20.0, 2),
        (3, 0.0, 1),  # never below min_replicas
        (3, 600.0, 7),  # no more than 4 at once, or as many as there are
        (6, 600.0, 12),
        (15, 600.0, 20),  # never above max_replicas
        (2, None, 2),
    ],
)
def test_the_size_follows_the_ratio_of_metric_and_target(
    num_current: int, metric: float | None, desired: int
) -> None:
    assert scaler().desired(0.0, num_current, metric) == desired


def test_scaling_down_waits_until_nothing_higher_was_recommended_for_a_while() -> None:
    policy = scaler(scale_down_stabilization_s=300)
    sizes = [policy.desired(now, 8, metric) for now, metric in ((0.0, 80.0), (15.0, 20.0), (300.0, 30.0))]
    assert sizes == [8, 8, 8]
    assert policy.desired(301.0, 8, 20.0) == 3  # the highest of 2, 3 and 2: the 8 of the beginning is too old


def test_scaling_up_may_wait_as_well() -> None:
    policy = scaler(scale_up_stabilization_s=30)
    assert [policy.desired(now, 2, metric) for now, metric in ((0.0, 20.0), (15.0, 40.0))] == [2, 2]
    assert policy.desired(31.0, 2, 60.0) == 4  # the lowest of 4 and 6


def test_a_schedule_is_the_least_size_and_may_begin_anew_each_day() -> None:
    policy = scaler(
        schedule=[{"at_s": 100, "replicas": 6}, {"at_s": 200, "replicas": 2}], schedule_period_s=1000
    )
    assert [policy.desired(now, 3, 30.0) for now in (50.0, 150.0, 250.0, 1150.0)] == [3, 6, 3, 6]


def test_slo_attainment_scales_by_misses_over_allowed_misses_within_bounds() -> None:
    policy = scaler(metric="slo", target=0.9)
    assert policy.desired(0.0, 4, 0.85) == 6  # misses 0.15 of 0.1 allowed
    assert policy.desired(1.0, 4, 0.2) == 8  # at most twice
    assert policy.desired(2.0, 4, 1.0) == 2  # at least half


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"min_replicas": 9, "max_replicas": 3, "target": 1}, "above max_replicas"),
        ({"max_replicas": 3}, "needs a target"),
        ({"max_replicas": 3, "metric": "schedule"}, "needs a schedule"),
        ({"max_replicas": 3, "metric": "slo", "target": 95}, "a share below 1"),
    ],
)
def test_an_autoscaler_that_makes_no_sense_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        AutoscalerSpec.model_validate(fields)
