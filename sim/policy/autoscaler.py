"""The `autoscaler:` part of a pool, and its decisions: how many replicas there should be.

Kubernetes' HorizontalPodAutoscaler by its documented rules: desired = ceil(current x metric / target), no
change while the ratio is within a tolerance of 1, and of the latest recommendations the highest one while
scaling down, the lowest one while scaling up.
Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/, "Algorithm details" and
"Configurable scaling behavior" (read 2026-11).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Literal, Self

from pydantic import Field, model_validator

from ..spec import Spec

# Rounding must not add a replica where the ratio is a whole number.
_ROUNDING = 1e-9
# An SLO says nothing of how far off the right size is: at most so much is added or taken at once.
_SLO_RATIOS = (0.5, 2.0)


class PlannedSize(Spec):
    """A size from an instant on."""

    at_s: float = Field(ge=0)
    replicas: int = Field(ge=0)


class AutoscalerSpec(Spec):
    """How many replicas a pool has, by what they are seen to do; `replicas` of the pool is the first size."""

    metric: Literal["outstanding", "waiting", "kv_use", "slo", "schedule"] = Field(
        "outstanding",
        description="Per replica: requests sent and not answered, of them those not admitted yet, share of "
        "KV blocks in use; or the share of answers within the scenario's `slo`; or `schedule` alone.",
    )
    target: float | None = Field(None, gt=0, description="What the metric should be.")
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(ge=1)
    sync_s: float = Field(
        15.0, gt=0, description="Between two looks (--horizontal-pod-autoscaler-sync-period)."
    )
    tolerance: float = Field(0.1, ge=0, description="No change while metric / target is this close to 1.")
    scale_up_stabilization_s: float = Field(0.0, ge=0, description="Take the lowest of this long.")
    scale_down_stabilization_s: float = Field(300.0, ge=0, description="Take the highest of this long.")
    scale_up_replicas: int = Field(
        4, ge=1, description="Replicas that one look may add, or as many as there are."
    )
    scale_down_replicas: int | None = Field(None, ge=1, description="Replicas that one look may take.")
    schedule: tuple[PlannedSize, ...] = Field(
        (), description="Least size from an instant on, in rising order."
    )
    schedule_period_s: float | None = Field(None, gt=0, description="The schedule begins anew after this.")
    provision_s: float = Field(60.0, ge=0, description="Until a machine is there: paid from its end on.")
    load_gb_per_s: float = Field(2.0, gt=0, description="Weights from disk or network to one replica's GPUs.")
    start_s: float = Field(30.0, ge=0, description="Process start, compilation, graph capture.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        if (self.metric == "schedule") != (self.target is None):
            raise ValueError(
                f"metric {self.metric} needs {'no ' if self.metric == 'schedule' else 'a '}target"
            )
        if self.metric == "schedule" and not self.schedule:
            raise ValueError("metric schedule needs a schedule")
        if self.metric in ("slo", "kv_use") and self.target is not None and self.target >= 1:
            raise ValueError(f"target of {self.metric} is a share below 1")
        instants = [planned.at_s for planned in self.schedule]
        if instants != sorted(set(instants)):
            raise ValueError("at_s of a schedule must rise")
        return self


Recommendation = tuple[float, int]
"""When it was made [s], and how many replicas it asks for."""


class Autoscaler:
    """Recommendations of one pool, kept for as long as stabilisation looks back."""

    def __init__(self, spec: AutoscalerSpec) -> None:
        self._spec = spec
        self._up: deque[Recommendation] = deque()
        self._down: deque[Recommendation] = deque()

    def desired(self, now: float, num_current: int, metric: float | None) -> int:
        """Returns how many replicas there should be.

        num_current: those that serve or are about to. metric: its sum over them; of `slo` the share of
        answers within it; None if nothing was seen.
        """
        spec = self._spec
        wanted = min(max(self._recommended(num_current, metric), self.planned(now)), spec.max_replicas)
        wanted = max(wanted, spec.min_replicas)
        lowest = _extreme(self._up, (now, wanted), spec.scale_up_stabilization_s, min)
        highest = _extreme(self._down, (now, wanted), spec.scale_down_stabilization_s, max)
        if lowest > num_current:
            return max(min(lowest, num_current + max(spec.scale_up_replicas, num_current)), spec.min_replicas)
        if highest < num_current:
            most = num_current if spec.scale_down_replicas is None else spec.scale_down_replicas
            return max(highest, num_current - most)
        return num_current

    def planned(self, now: float) -> int:
        """Returns the size that the schedule asks for at `now` [s]; 0 before it begins."""
        spec = self._spec
        at = now if spec.schedule_period_s is None else now % spec.schedule_period_s
        return next((planned.replicas for planned in reversed(spec.schedule) if planned.at_s <= at), 0)

    def _recommended(self, num_current: int, metric: float | None) -> int:
        target = self._spec.target
        if target is None:
            return 0
        if metric is None or not num_current:
            return num_current
        if self._spec.metric == "slo":
            least, most = _SLO_RATIOS
            ratio = min(max((1 - metric) / (1 - target), least), most)
        else:
            ratio = metric / (num_current * target)
        if abs(ratio - 1) <= self._spec.tolerance:
            return num_current
        return ceil(num_current * ratio - _ROUNDING)


def _extreme(
    kept: deque[Recommendation], new: Recommendation, back_s: float, best: Callable[[int, int], int]
) -> int:
    """Adds a recommendation and returns the best one of the last `back_s`."""
    kept.append(new)
    while kept[0][0] < new[0] - back_s:
        kept.popleft()
    found = new[1]
    for _, size in kept:
        found = best(found, size)
    return found
