"""Synthetic demand: arrivals x lengths x shared prefixes, each from its own random stream."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import Problem, ScenarioError
from .arrivals import Extent, arrival_times
from .content import RunContents
from .demand import Demand, IntColumn
from .lengths import sample_lengths
from .spec import ArrivalSpec, ClosedLoopArrivals, SharedPrefix, SyntheticSpec
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
    demand = Demand(
        arrived_at, prompts, outputs, num_clients=clients_of(spec.arrivals), origin=_describe(spec)
    )
    if spec.shared_prefix is not None:
        _put_prefixes(demand, spec.shared_prefix, seed=seed, base_dir=base_dir)
    return demand


def clients_of(arrivals: ArrivalSpec) -> int | None:
    """Returns the number of clients of a closed loop, None for open arrivals."""
    return arrivals.num_clients if isinstance(arrivals, ClosedLoopArrivals) else None


def _put_prefixes(demand: Demand, spec: SharedPrefix, *, seed: int, base_dir: Path) -> None:
    """Puts a prefix in front of the prompts: contents are set, `prompt_tokens` grow."""
    rng = stream(seed, "prefixes")
    weights = np.arange(1, spec.num_prefixes + 1) ** -spec.zipf_exponent
    cumulative = np.cumsum(weights) / weights.sum()
    has_prefix = rng.random(len(demand)) < spec.share
    picked = np.searchsorted(cumulative, rng.random(int(has_prefix.sum())))
    np.minimum(picked, spec.num_prefixes - 1, out=picked)
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
