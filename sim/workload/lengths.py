"""Prompt and output lengths, drawn at once for all requests of a workload."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

import numpy as np
import yaml
from pydantic import ValidationError

from ...errors import TraceError, nearest_choice
from .demand import FloatColumn, IntColumn
from .length_spec import (
    MAX_TOKENS,
    FixedLength,
    HistogramLength,
    LengthSpec,
    LognormalLength,
    UniformLength,
    ZipfLength,
)
from .paths import find_data_file


def sample_lengths(spec: LengthSpec, rng: np.random.Generator, size: int, *, base_dir: Path) -> IntColumn:
    """Returns `size` lengths [tokens], each at least 1.

    Raises: TraceError when a histogram's file is missing or malformed.
    """
    match spec:
        case FixedLength():
            return np.full(size, spec.tokens, dtype=np.int64)
        case UniformLength():
            return rng.integers(spec.min_tokens, spec.max_tokens, size, endpoint=True)
        case LognormalLength():
            return _lognormal(spec, rng, size)
        case ZipfLength():
            ranks = np.arange(1, spec.max_tokens - spec.min_tokens + 2, dtype=np.float64)
            return _weighted(rng, ranks**-spec.exponent, size) + spec.min_tokens
        case HistogramLength():
            return _histogram(load_histogram(spec, base_dir), rng, size)
        case _:
            assert_never(spec)


def load_histogram(spec: HistogramLength, base_dir: Path) -> HistogramLength:
    """Returns the spec with its values inline, read from its file if it names one.

    Raises: TraceError when the file is missing, is no YAML mapping, lacks the column or holds a bad one.
    """
    if spec.path is None:
        return spec
    try:
        columns = yaml.safe_load(find_data_file(spec.path, base_dir).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TraceError(spec.path, None, f"is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(columns, dict) or spec.column not in columns:
        names = [str(name) for name in columns] if isinstance(columns, dict) else []
        hint = nearest_choice(spec.column, names)
        also = f"; did you mean {hint!r}?" if hint else ""
        raise TraceError(spec.path, None, f"has no column {spec.column!r}{also}")
    try:
        return HistogramLength.model_validate(columns[spec.column])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (spec.column, *first["loc"])))
        raise TraceError(spec.path, None, f"{where}: {first['msg']}") from None


def _lognormal(spec: LognormalLength, rng: np.random.Generator, size: int) -> IntColumn:
    """Returns clipped lognormal lengths.

    With mean m and standard deviation s: sigma^2 = ln(1 + (s / m)^2), mu = ln(m) - sigma^2 / 2.
    Source: Johnson, Kotz, Balakrishnan, Continuous Univariate Distributions, vol. 1, chapter 14.
    """
    if spec.median_tokens is not None and spec.sigma is not None:
        mu, sigma = np.log(spec.median_tokens), spec.sigma
    else:
        assert spec.mean_tokens is not None and spec.std_tokens is not None
        sigma = np.sqrt(np.log1p((spec.std_tokens / spec.mean_tokens) ** 2))
        mu = np.log(spec.mean_tokens) - sigma**2 / 2
    lengths = rng.lognormal(mu, sigma, size)
    np.clip(lengths, spec.min_tokens, spec.max_tokens or MAX_TOKENS, out=lengths)
    return np.rint(lengths, out=lengths).astype(np.int64)


def _histogram(spec: HistogramLength, rng: np.random.Generator, size: int) -> IntColumn:
    if spec.values_tokens is not None:
        values = np.array(spec.values_tokens, dtype=np.int64)
        return values[_weighted(rng, _weights(spec, len(values)), size)]
    assert spec.edges_tokens is not None
    edges = np.array(spec.edges_tokens, dtype=np.float64)
    weights = _weights(spec, len(edges) - 1)
    # The distribution function is a straight line between the edges; rounding up spreads a bin evenly over
    # (lower, upper], and starting one below the first edge lets the first bin have its lower edge too.
    edges[0] -= 1
    cumulative = np.concatenate(([0.0], np.cumsum(weights) / weights.sum()))
    lengths = np.ceil(np.interp(rng.random(size), cumulative, edges)).astype(np.int64)
    return np.maximum(lengths, spec.edges_tokens[0], out=lengths)


def _weights(spec: HistogramLength, count: int) -> FloatColumn:
    return np.ones(count) if spec.weights is None else np.array(spec.weights, dtype=np.float64)


def _weighted(rng: np.random.Generator, weights: FloatColumn, size: int) -> IntColumn:
    """Returns `size` indices into `weights`, each as likely as its weight."""
    cumulative = np.cumsum(weights)
    drawn = rng.random(size) * cumulative[-1]
    # Rounding may carry a draw to the very end; the last positive weight is then meant.
    last = int(np.flatnonzero(weights)[-1])
    indices: IntColumn = np.searchsorted(cumulative, drawn, side="right")
    return np.minimum(indices, last, out=indices)
