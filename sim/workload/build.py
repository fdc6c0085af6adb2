"""From a `WorkloadSpec` to a `Demand`: the one place that knows which kind is built where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar, assert_never, cast

import numpy as np

from ...errors import TraceError
from ..spec import Spec
from .arrange import in_arrival_order, scaled
from .conversation import converse
from .conversation_spec import ConversationSpec
from .demand import Demand
from .length_spec import HistogramLength
from .lengths import load_histogram
from .paths import absolute_path, find_data_file
from .request_spec import SampledSpec
from .servegen import load_servegen
from .spec import (
    AnyTraceSpec,
    AzureSpec,
    MooncakeSpec,
    ServeGenSpec,
    ShareGptSpec,
    SyntheticSpec,
    TableSpec,
    VllmBenchSpec,
    WorkloadSpec,
)
from .synthetic import synthesize
from .tenants import with_tenants
from .traces.azure import load_azure
from .traces.mooncake import load_mooncake
from .traces.sharegpt import load_sharegpt
from .traces.table import read_table
from .traces.vllm_bench import load_vllm_bench
from .workload_file import read_demand

AnySpec = TypeVar("AnySpec", bound=Spec)


def build_demand(spec: WorkloadSpec, *, seed: int, base_dir: Path) -> Demand:
    """Returns the requests that `spec` asks for, in order of arrival.

    base_dir: the folder of the scenario, to which its paths are relative.
    Raises: TraceError when a file is missing (and there is no fallback) or malformed; ScenarioError when
    the spec asks for no request at all, or to play a closed loop faster.
    """
    if isinstance(spec, SyntheticSpec):
        demand = synthesize(spec, seed=seed, base_dir=base_dir)
    elif isinstance(spec, ConversationSpec):
        demand = converse(spec, seed=seed, base_dir=base_dir)
    else:
        demand = _trace_or_fallback(spec, seed=seed, base_dir=base_dir)
    demand = with_tenants(_sampled(demand, spec), spec.tenant_shares, seed)
    demand.check()
    return demand


def resolve_workload(spec: AnySpec, base_dir: Path) -> AnySpec:
    """Returns the spec such that it means the same from any folder.

    Histograms are read in, relative paths become absolute; those with an environment variable stay.
    Raises: TraceError when a histogram's file is missing or malformed.
    """
    if isinstance(spec, HistogramLength):
        return cast(AnySpec, load_histogram(spec, base_dir))
    changes: dict[str, object] = {}
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            changes[name] = resolve_workload(value, base_dir)
        elif name == "path":
            changes[name] = absolute_path(value, base_dir)
    return spec.model_copy(update=changes)


def _trace_or_fallback(spec: AnyTraceSpec, *, seed: int, base_dir: Path) -> Demand:
    try:
        path = find_data_file(spec.path, base_dir)
    except TraceError as absent:
        if spec.fallback is None:
            raise
        demand = synthesize(spec.fallback, seed=seed, base_dir=base_dir)
        return replace(demand, notes=(f"{absent}; its synthetic fallback is played instead", *demand.notes))
    return _recorded(spec, path, seed=seed)


def _recorded(spec: AnyTraceSpec, path: Path, *, seed: int) -> Demand:
    match spec:
        case AzureSpec():
            demand = load_azure(spec, path)
        case MooncakeSpec():
            demand = load_mooncake(spec, path)
        case VllmBenchSpec():
            demand = load_vllm_bench(spec, path)
        case ShareGptSpec():
            return load_sharegpt(spec, path, seed=seed)
        case ServeGenSpec():
            demand = load_servegen(spec, path, seed=seed)
        case TableSpec():
            demand = _table(spec, path)
        case _:
            assert_never(spec)
    return scaled(in_arrival_order(demand), spec.rate_scale)


def _sampled(demand: Demand, spec: SampledSpec) -> Demand:
    """Returns the demand with the samples or beams that the spec asks for in every row, if it does."""
    if spec.num_samples > 1:
        return replace(demand, num_samples=np.full(len(demand), spec.num_samples))
    if spec.beam_width:
        return replace(demand, beam_width=np.full(len(demand), spec.beam_width))
    return demand


def _table(spec: TableSpec, path: Path) -> Demand:
    match path.suffix:
        case ".jsonl":
            return read_demand(path, spec.num_requests)
        case ".parquet" | ".csv":
            return replace(read_table(path, spec.num_requests), origin=f"requests of {spec.path}")
        case _:
            raise TraceError(path, None, "must be .parquet, .csv or .jsonl")
