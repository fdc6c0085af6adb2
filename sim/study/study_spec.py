"""A study: one scenario, axes along which its fields change, and seeds. Data only; `axes.py` expands it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from ..spec import Spec

Number = int | float


class RangeSpec(Spec):
    """Evenly spaced numbers from start to stop, both included; give step or num."""

    start: Number
    stop: Number
    step: Number | None = Field(None, gt=0)
    num: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start >= self.stop:
            raise ValueError("start must be less than stop")
        if (self.step is None) == (self.num is None):
            raise ValueError("give either step or num")
        return self


class LogRangeSpec(Spec):
    """num numbers from start to stop, both included, each the same factor above the last."""

    start: Number = Field(gt=0)
    stop: Number = Field(gt=0)
    num: int = Field(ge=2)
    integer: bool = Field(False, description="Round to whole numbers; what comes twice is taken once.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start >= self.stop:
            raise ValueError("start must be less than stop")
        return self


class AxisSpec(Spec):
    """One field of the scenario and its values, or with zip several fields that change together."""

    path: str | None = Field(None, min_length=1, description="The field, e.g. pools.0.parallel.tp.")
    name: str | None = Field(None, min_length=1, description="Its column in the results; else the path.")
    values: tuple[JsonValue, ...] | None = Field(None, min_length=1, description="Any values, mappings too.")
    range: RangeSpec | None = None
    log_range: LogRangeSpec | None = None
    zip: tuple[AxisSpec, ...] | None = Field(
        None, min_length=2, description="Axes of equal length, whose first values belong together, and so on."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        choices = [self.values, self.range, self.log_range]
        if self.zip is not None:
            if self.path or self.name or any(choice is not None for choice in choices):
                raise ValueError("zip has axes of its own: give nothing beside it")
            if any(axis.zip is not None for axis in self.zip):
                raise ValueError("a zip can't hold another one")
            return self
        if self.path is None:
            raise ValueError("give a path, or zip")
        if sum(choice is not None for choice in choices) != 1:
            raise ValueError("give one of values, range, log_range")
        if self.path == "seed":
            raise ValueError("seeds are no axis; use the study's `seeds`")
        return self


def _scenario_tag(value: object) -> str:
    return "inline" if isinstance(value, dict) else "source"


def _seeds_tag(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "count"


# Tagged, so that a wrong value is told what its own kind wants, and nothing about the other one.
ScenarioSource = Annotated[
    Annotated[str, Tag("source")] | Annotated[dict[str, Any], Tag("inline")], Discriminator(_scenario_tag)
]
Seeds = Annotated[
    Annotated[Annotated[int, Field(ge=1)], Tag("count")]
    | Annotated[Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)], Tag("list")],
    Discriminator(_seeds_tag),
]


class StudySpec(Spec):
    """A scenario, what is changed in it, and how often each point is repeated with another seed."""

    name: str = Field("study", min_length=1)
    scenario: ScenarioSource = Field(
        description="A shipped scenario's name, a path from the study's folder, or the scenario itself."
    )
    set: dict[str, JsonValue] = Field({}, description="Fields that differ from the scenario in all points.")
    axes: tuple[AxisSpec, ...] = Field((), description="Every combination of their values is a point.")
    seeds: Seeds = Field(
        1, description="Seeds of each point: a list, or how many, counted up from the scenario's seed."
    )

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        plain = [one for axis in self.axes for one in (axis.zip or (axis,))]
        columns = [axis.name or axis.path for axis in plain]
        twice = next((column for column in columns if columns.count(column) > 1), None)
        if twice is not None:
            raise ValueError(f"two axes are called {twice!r}; give one of them another name")
        return self
