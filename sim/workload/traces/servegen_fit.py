"""The compact file of a ServeGen fit: a few groups of clients, by hour and by quantile, as YAML.

`rates_per_s` has one entry per hour of the day. Lengths and shares are quantiles at the points
`cumulative`, with values spread evenly in between.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from ....errors import TraceError
from ...spec import Spec
from ..demand import FloatColumn
from .lines import open_text
from .servegen import ArrivalWindow, Client, Histogram, LengthWindow

HOUR_S = 3600.0

Rate = Annotated[float, Field(ge=0)]
Quantiles = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2)]


class FittedLengths(Spec):
    """What requests are like from an instant of the day on."""

    start_s: float = Field(ge=0)
    input_tokens: Quantiles
    output_tokens: Quantiles
    reason_ratio: Quantiles


class FittedClient(Spec):
    """A client, or several that are taken together."""

    burstiness: float = Field(gt=0, description="Shape of the Gamma gaps.")
    rates_per_s: tuple[Rate, ...] = Field(min_length=24, max_length=24)
    lengths: tuple[FittedLengths, ...] = Field(min_length=1)


class ServeGenFit(Spec):
    """The whole file; `source` says what it was fitted to."""

    format: Literal["simllm-servegen-fit"]
    source: str
    cumulative: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=2)
    clients: tuple[FittedClient, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_points(self) -> Self:
        points = self.cumulative
        if points[0] != 0 or points[-1] != 1 or list(points) != sorted(points):
            raise ValueError("cumulative must go from 0 to 1")
        for lengths in (lengths for client in self.clients for lengths in client.lengths):
            for edges in (lengths.input_tokens, lengths.output_tokens, lengths.reason_ratio):
                if len(edges) != len(points) or list(edges) != sorted(edges):
                    raise ValueError(f"lengths must be {len(points)} quantiles in order")
        return self


def read_fit(path: Path, start_s: float, end_s: float) -> list[Client]:
    """Returns the clients of a fit, with the hours between these instants [s].

    Raises: TraceError when the file is no such fit.
    """
    with open_text(path) as file:
        text = file.read()
    try:
        fit = ServeGenFit.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise TraceError(path, None, f"is no YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise TraceError(path, None, f"is no fit of ServeGen: {where}: {first['msg']}") from None
    weights = np.diff(fit.cumulative)
    return [_client(number, one, weights, start_s, end_s) for number, one in enumerate(fit.clients)]


def _client(number: int, fitted: FittedClient, weights: FloatColumn, start_s: float, end_s: float) -> Client:
    """Returns a fitted client as windows of an hour, those between these instants [s]."""
    windows = [
        ArrivalWindow(hour * HOUR_S, HOUR_S, rate * HOUR_S, "gamma", fitted.burstiness)
        for hour, rate in enumerate(fitted.rates_per_s)
        if rate and hour * HOUR_S < end_s and (hour + 1) * HOUR_S > start_s
    ]
    return Client(number, windows, [_lengths(lengths, weights) for lengths in fitted.lengths])


def _lengths(fitted: FittedLengths, weights: FloatColumn) -> LengthWindow:
    parts = (fitted.input_tokens, fitted.output_tokens, fitted.reason_ratio)
    histograms = (Histogram(np.array(edges), weights, is_binned=True) for edges in parts)
    return LengthWindow(fitted.start_s, *histograms)
