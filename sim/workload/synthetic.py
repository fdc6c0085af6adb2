"""Synthetic demand: arrivals x lengths x shared prefixes, each from its own random stream."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import Problem, ScenarioError
from .arrival_spec import ArrivalSpec, ClosedLoopArrivals
from .arrivals import Extent, arrival_times
from .content import RunContents
from .demand import Demand, FloatColumn, IntColumn
from .lengths import sample_lengths
from .reasoning import draw_reasoning
from .request_spec import SharedPrefix
from .spec import SyntheticSpec
from .streams import stream

BoolColumn = NDArray[np.bool_]


def synthesize(spec: SyntheticSpec, *, seed: int, base_dir: Path) -> Demand:
    """Returns the requests that `spec` describes; the same seed gives the same rows.

    Raises: ScenarioError when no request arrives within duration_s; TraceError for a histogram's file.
    """
    extent = Extent(spec.num_requests, spec.duration_s or math.inf)
    arrived_at = arrival_times(spec.arrivals, stream(seed, "arrivals"), extent)
    size = len(arrived_at)
    if not size:
        raise ScenarioError([Problem("workload.duration_s", "no request arrives so soon", spec.duration_s)])
    prompts = sample_lengths(spec.prompt_tokens, stream(seed, "prompt_tokens"), size, base_dir=base_dir)
    outputs = sample_lengths(spec.output_tokens, stream(seed, "output_tokens"), size, base_dir=base_dir)
    reasoning = None
    if spec.reasoning is not None:
        outputs, reasoning = draw_reasoning(spec.reasoning, outputs, seed=seed, base_dir=base_dir)
    demand = Demand(
        arrived_at, prompts, outputs, num_clients=clients_of(spec.arrivals), origin=_describe(spec)
    )
    demand.reasoning_tokens = reasoning
    if spec.shared_prefix is not None:
        _put_prefixes(demand, spec.shared_prefix, seed=seed, base_dir=base_dir)
    return demand


def pick_popular(rng: np.random.Generator, count: int, zipf_exponent: float, size: int) -> IntColumn:
    """Returns `size` numbers below `count`, the r-th (from 1) with a weight of r^-zipf_exponent."""
    cumulative = np.cumsum(popularity(count, zipf_exponent))
    picked: IntColumn = np.searchsorted(cumulative, rng.random(size))
    return np.minimum(picked, count - 1, out=picked)


def popularity(count: int, zipf_exponent: float) -> FloatColumn:
    """Returns the probabilities of the ranks 1 to `count`."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -zipf_exponent
    shares: FloatColumn = weights / weights.sum()
    return shares


def clients_of(arrivals: ArrivalSpec) -> int | None:
    """Returns the number of clients of a closed loop, None for open arrivals."""
    return arrivals.num_clients if isinstance(arrivals, ClosedLoopArrivals) else None


def _put_prefixes(demand: Demand, spec: SharedPrefix, *, seed: int, base_dir: Path) -> None:
    """Puts a prefix in front of the prompts: contents are set, `prompt_tokens` grow."""
    rng = stream(seed, "prefixes")
    has_prefix = rng.random(len(demand)) < spec.share
    picked = pick_popular(rng, spec.num_prefixes, spec.zipf_exponent, int(has_prefix.sum()))
    lengths_rng = stream(seed, "prefix_tokens")
    lengths = sample_lengths(spec.prefix_tokens, lengths_rng, spec.num_prefixes, base_dir=base_dir)
    demand.contents = _two_runs(picked, lengths, demand.prompt_tokens, has_prefix)
    demand.prompt_tokens[has_prefix] += lengths[picked]


def _two_runs(picked: IntColumn, lengths: IntColumn, own: IntColumn, has_prefix: BoolColumn) -> RunContents:
    """Returns the contents prefix + own tokens; ids after those of the prefixes name the own parts."""
    # Half the width halves the memory of a million requests; the spec bounds every length to 31 bits.
    ids = np.empty(2 * len(picked), dtype=np.int32)
    num_tokens = np.empty(2 * len(picked), dtype=np.int32)
    ids[0::2], ids[1::2] = picked, np.flatnonzero(has_prefix)
    ids[1::2] += len(lengths)
    num_tokens[0::2], num_tokens[1::2] = lengths[picked], own[has_prefix]
    return RunContents(ids, num_tokens, 2 * np.cumsum(has_prefix, dtype=np.int32))


def _describe(spec: SyntheticSpec) -> str:
    lengths = f"{spec.prompt_tokens.kind} prompts, {spec.output_tokens.kind} outputs"
    return f"synthetic: {spec.arrivals.kind} arrivals, {lengths}"
