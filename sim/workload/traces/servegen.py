"""ServeGen: clients of a production service, as a published folder or as a compact file fitted to one.

A folder has, per client, `chunk-N-trace.csv` (start of a window [s], requests per second, coefficient of
variation of the gaps, their distribution, its shape and scale) and `chunk-N-dataset.json` (per window of six
hours, histograms of input tokens, output tokens and the share of the output that is reasoning).
Source: https://github.com/alibaba/ServeGen (data/reason/deepseek-r1); Xiang et al., arXiv:2505.09999.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ....errors import TraceError
from ..demand import FloatColumn
from .lines import open_text, shown

WINDOW_S = 600.0
"""Length of a window of arrivals [s]. Source: the steps of start_s in the published files."""
_DISTRIBUTIONS: dict[str, Literal["gamma", "weibull"]] = {"Gamma": "gamma", "Weibull": "weibull"}
_TRACE = re.compile(r"chunk-(\d+)-trace\.csv")


class ArrivalWindow(NamedTuple):
    """Requests of one client from start_s [s] on for duration_s [s]: how many, and how their gaps vary."""

    start_s: float
    duration_s: float
    num_requests: float
    distribution: Literal["gamma", "weibull"]
    shape: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Values and how likely each is; is_binned: value i stands for all up to value i+1, evenly."""

    values: FloatColumn
    weights: FloatColumn
    is_binned: bool = False

    def sample(self, rng: np.random.Generator, size: int) -> FloatColumn:
        """Returns `size` draws."""
        cumulative = np.cumsum(self.weights) / self.weights.sum()
        drawn = np.searchsorted(cumulative, rng.random(size), side="right")
        drawn = np.minimum(drawn, len(self.weights) - 1)
        if not self.is_binned:
            return self.values[drawn]
        low, high = self.values[drawn], self.values[drawn + 1]
        spread: FloatColumn = low + (high - low) * rng.random(size)
        return spread


class LengthWindow(NamedTuple):
    """What a client's requests are like from start_s [s] on."""

    start_s: float
    input_tokens: Histogram
    output_tokens: Histogram
    reason_ratio: Histogram | None


@dataclass(frozen=True, slots=True)
class Client:
    """One client: windows of arrivals and of lengths, each in order of time."""

    number: int
    arrivals: list[ArrivalWindow]
    lengths: list[LengthWindow] = field(default_factory=list)


def read_folder(folder: Path, start_s: float, end_s: float) -> list[Client]:
    """Returns the clients that send anything in windows between these instants [s], by number.

    Raises: TraceError naming the file, and the line of a table, that is missing or malformed.
    """
    found = sorted((int(m.group(1)), path) for path in folder.iterdir() if (m := _TRACE.fullmatch(path.name)))
    if not found:
        raise TraceError(folder, None, "holds no chunk-N-trace.csv of ServeGen")
    clients = []
    for number, path in found:
        windows = [w for w in _read_trace(path) if w.start_s < end_s and w.start_s + w.duration_s > start_s]
        if windows:
            lengths = _read_dataset(folder / f"chunk-{number}-dataset.json")
            clients.append(Client(number, windows, lengths))
    return clients


def _read_trace(path: Path) -> list[ArrivalWindow]:
    """Returns the windows in which anything arrives."""
    with open_text(path) as file:
        rows = [(line, row) for line, row in enumerate(csv.reader(file), 1) if row]
    windows = [_window(row, path, line) for line, row in rows]
    return [window for window in windows if window.num_requests]


def _window(row: Sequence[str], path: Path, line: int) -> ArrivalWindow:
    try:
        start_s, rate, _, distribution, shape, scale = row
        numbers = [float(start_s), float(rate), float(shape), float(scale)]
    except ValueError:
        what = "must hold start, rate, cv, distribution, shape, scale"
        raise TraceError(path, line, f"{what} (got {shown(','.join(row))})") from None
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise TraceError(path, line, f"numbers must be finite and not negative (got {shown(','.join(row))})")
    if not numbers[1]:
        return ArrivalWindow(numbers[0], WINDOW_S, 0.0, "gamma", 1.0)
    if distribution not in _DISTRIBUTIONS:
        # A window with too few requests to fit has no distribution.
        if distribution:
            raise TraceError(path, line, f"distribution must be Gamma or Weibull (got {shown(distribution)})")
        return ArrivalWindow(numbers[0], WINDOW_S, numbers[1] * WINDOW_S, "gamma", 1.0)
    if not numbers[2]:
        raise TraceError(path, line, "shape must be above 0 (got 0)")
    kind = _DISTRIBUTIONS[distribution]
    return ArrivalWindow(numbers[0], WINDOW_S, numbers[1] * WINDOW_S, kind, numbers[2])


def _read_dataset(path: Path) -> list[LengthWindow]:
    with open_text(path) as file:
        text = file.read()
    try:
        windows = json.loads(text)
        found = [_length_window(start, window, path) for start, window in windows.items()]
    except (ValueError, AttributeError) as error:
        raise TraceError(path, None, f"is no dataset of ServeGen: {error}") from None
    lengths = sorted((window for window in found if window is not None), key=lambda window: window.start_s)
    if not lengths:
        raise TraceError(path, None, "holds no lengths")
    return lengths


def _length_window(start: str, window: dict[str, Any], path: Path) -> LengthWindow | None:
    """Returns None for a window in which nothing arrived: its histograms are empty."""
    for name in ("input_tokens", "output_tokens"):
        if name not in window:
            raise TraceError(path, None, f"window {start} has no {name!r}")
    inputs = parse_histogram(window["input_tokens"], "input_tokens", path)
    outputs = parse_histogram(window["output_tokens"], "output_tokens", path)
    if inputs is None or outputs is None:
        return None
    ratio = parse_histogram(window.get("reason_ratio", "{}"), "reason_ratio", path)
    return LengthWindow(float(start), inputs, outputs, ratio)


def parse_histogram(text: object, name: str, path: Path) -> Histogram | None:
    """Returns the histogram in a text ``{value: probability, ...}``, which is read as data, not run.

    None where nothing was counted.

    Raises: TraceError when it has another form or negative entries.
    """
    try:
        inner = str(text).strip().removeprefix("{").removesuffix("}")
        if not inner:
            return None
        numbers = np.array([float(part) for part in inner.replace(":", ",").split(",")])
        values, weights = numbers.reshape(-1, 2).T
    except ValueError:
        raise TraceError(path, None, f"{name} must be {{value: share, ...}} (got {shown(text)})") from None
    if not np.isfinite(numbers).all() or numbers.min() < 0:
        raise TraceError(path, None, f"{name}: values and shares must be finite and not negative")
    return Histogram(values, weights) if weights.sum() else None
