"""What the schemas of measured files share: strict parts, and a value with its confidence."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A part of a file: nothing unknown in it, no infinities, and it does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FittedCoefficient(Part):
    """A value with the ends of its 95 % confidence interval, in the unit that its form states."""

    value: Positive
    low: Positive
    high: Positive


class EngineConstant(Part):
    """A constant of an engine, which may be nothing, with the ends of its 95 % confidence interval."""

    value: NonNegative
    low: NonNegative
    high: NonNegative
