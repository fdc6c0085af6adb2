"""The schema of a calibrated profile: one file per GPU, every number with what it was measured on.

What the numbers mean: docs/profile.md. `op_profile` predicts from `ops`, `link_profile` from `links`, and
`roofline` falls back on `efficiency` where an operation was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .fitted import FittedCoefficient, Part, Positive
from .link_profile import LinkEntry
from .power import PowerLimit

EfficiencyName = Literal["matrix", "attention_matrix", "vector", "hbm", "kv_hbm", "l2", "sram", "link"]
RungName = Literal["hbm_copy", "hbm_read", "hbm_write", "l2", "sram", "graph_gap", "eager_launch"]


class Coefficient(Part):
    """One efficiency: its value, where it comes from, and how far it can be trusted.

    valid: the range of sizes that were measured, in words. held_out_error: median relative error on
    measurements that were kept out of the fit, None for an estimate.
    """

    value: Annotated[float, Field(gt=0, le=1)]
    source: Annotated[str, Field(min_length=1)]
    estimated: bool = False
    valid: str | None = None
    held_out_error: Annotated[float, Field(ge=0)] | None = None


class Rung(Part):
    """One rung of the memory ladder, or one launch: the median of its samples, the least and the most.

    unit: B/s, or s of one launch.
    """

    value: Positive
    low: Positive
    high: Positive
    unit: Literal["B/s", "s"]
    num_samples: Annotated[int, Field(gt=0)]


class HeldOutErrors(Part):
    """Relative errors on samples whose whole group (`grouped_by`) was left out of the fit."""

    median: float
    p90: float
    worst: float
    grouped_by: str
    num_groups: int
    num_samples: int


class OpEntry(Part):
    """One fit. valid: smallest and largest measured value of every size."""

    op: str
    implementation: str
    dtype: str
    form: str
    num_samples: int
    held_out: HeldOutErrors
    valid: Mapping[str, tuple[float, float]]
    coefficients: Mapping[str, FittedCoefficient]


class PowerHeldOut(Part):
    """Median relative errors on sequences of steps that were left out of the fit: of steps, of whole sums."""

    step: Annotated[float, Field(ge=0)]
    sequence: Annotated[float, Field(ge=0)]
    num_sequences: Annotated[int, Field(gt=0)]


class PowerEntry(Part):
    """How the GPU meets its power limit, see `power.PowerLimit`. source: on which host it was measured."""

    source: Annotated[str, Field(min_length=1)]
    full_clock_ratio: Annotated[float, Field(gt=0, lt=1)]
    other_slowdown: Annotated[float, Field(ge=0)]
    reaction_s: Positive
    busy_headroom: Positive
    idle_headroom: Positive
    num_samples: Annotated[int, Field(gt=0)]
    held_out: PowerHeldOut

    def limit(self) -> PowerLimit:
        """Returns the constants alone."""
        return PowerLimit(
            self.full_clock_ratio,
            self.other_slowdown,
            self.reaction_s,
            self.busy_headroom,
            self.idle_headroom,
        )


class CalibratedFile(Part):
    """One GPU's file. Every measured part is optional, one of them is there.

    Efficiencies that the file leaves out keep their estimated defaults.
    """

    schema_version: Literal[1]
    kind: Literal["calibrated"]
    name: Annotated[str, Field(min_length=1)]
    device: str
    host: Annotated[dict[str, str], Field(min_length=1)]
    efficiency: dict[EfficiencyName, Coefficient] = Field(default_factory=dict)
    ladder: dict[RungName, Rung] = Field(default_factory=dict)
    links: tuple[LinkEntry, ...] = ()
    ops: tuple[OpEntry, ...] = ()
    power: PowerEntry | None = None

    @model_validator(mode="after")
    def _has_measured_something(self) -> Self:
        if not (self.efficiency or self.ladder or self.links or self.ops or self.power):
            raise ValueError("holds no measurement: give one of efficiency, ladder, links, ops, power")
        return self
