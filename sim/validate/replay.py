"""The scenario that replays a result file: the engine's settings, and its requests as they were sent.

The settings are those that the file's `engine` block holds. A plain file of `vllm bench serve` has none:
they come from a scenario file or are vLLM's defaults, and what was assumed is said in the notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import Problem, ScenarioError, TraceError
from ..overrides import apply_overrides
from ..run import Prepared, prepare
from ..scenario import Scenario, load_scenario, parse_scenario
from ..workload.arrange import in_arrival_order
from ..workload.arrival_spec import GammaArrivals
from ..workload.arrivals import Extent, arrival_times
from ..workload.demand import Demand
from ..workload.spec import VllmBenchSpec
from ..workload.streams import stream
from ..workload.traces.vllm_bench import BenchResult, demand_of
from .engine_block import pool_of, read_engine_block
from .in_process import with_in_process_client

NO_NOTES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenSettings:
    """What the user says about the engine, beside the files.

    device: a profile in place of the file's GPU. scenario: a file or shipped scenario whose pools stand
    for the engine of a file that has no `engine` block. overrides: `path=value` each, applied last.
    """

    device: str | None = None
    scenario: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """A scenario that replays a file, the folder of its paths, and what had to be assumed, in words."""

    scenario: Scenario
    folder: Path
    notes: tuple[str, ...]

    @property
    def workload(self) -> VllmBenchSpec:
        """The file to replay."""
        workload = self.scenario.workload
        assert isinstance(workload, VllmBenchSpec), "a replay plays a result of vllm bench serve"
        return workload


def replay_of(bench: BenchResult, given: GivenSettings) -> Replay:
    """Returns the scenario that replays a file.

    Raises: ScenarioError for settings that are unknown or not modelled; TraceError for a file that lacks
    settings which nothing else gives.
    """
    block = bench.scalars.get("engine")
    engine = read_engine_block(block, bench.path) if isinstance(block, dict) else None
    if engine is not None:
        pool = pool_of(engine, device=given.device, path=bench.path)
        pools: list[Any] = [pool.model_dump(mode="json", exclude={"engine_overhead"})]
        folder, notes = bench.path.parent, NO_NOTES
    elif given.scenario is not None:
        pools, folder = _pools_of(given.scenario, given.device)
        notes = (f"settings of the engine: {given.scenario}",)
    else:
        pools, folder = [_default_pool(bench, given)], bench.path.parent
        notes = ("no `engine` block: settings not given are vLLM's defaults, KV blocks are estimated",)
    data = {
        "name": bench.path.name,
        "workload": {"kind": "vllm_bench", "path": str(bench.path.resolve())},
        "pools": pools,
    }
    scenario = parse_scenario(apply_overrides(data, given.overrides))
    if engine is not None:
        scenario = with_in_process_client(scenario, engine.name, folder)
    return Replay(scenario, folder, notes)


def prepare_replay(bench: BenchResult, replay: Replay) -> tuple[Prepared, tuple[str, ...]]:
    """Returns the replay with everything loaded, and all notes.

    Raises: TraceError if nothing tells when the requests were sent; SimllmError as `prepare` does.
    """
    demand, notes = _demand(bench, replay)
    return prepare(replay.scenario, replay.folder, demand), (*replay.notes, *demand.notes, *notes)


def _pools_of(source: str, device: str | None) -> tuple[list[Any], Path]:
    """Returns the pools of a scenario file, on another device if one is given, and the file's folder."""
    scenario, folder = load_scenario(source)
    changes = {} if device is None else {"device": device}
    return [{**pool.model_dump(mode="json"), **changes} for pool in scenario.pools], folder


def _default_pool(bench: BenchResult, given: GivenSettings) -> dict[str, Any]:
    """Returns the least that an engine needs: the file's model on the GPU that the user names."""
    if given.device is None:
        what = "has no `engine` block: give the GPU with --profile, or the engine's settings with --scenario"
        raise ScenarioError([Problem(str(bench.path), what)])
    model = bench.scalars.get("model_id")
    return {"device": given.device, **({} if model is None else {"model": model})}


def _demand(bench: BenchResult, replay: Replay) -> tuple[Demand, tuple[str, ...]]:
    spec = replay.workload
    if "start_times" in bench.scalars or bench.num_clients is not None:
        return in_arrival_order(demand_of(bench, spec)), ()
    rate, num_requests = bench.scalars.get("request_rate"), len(bench.rows)
    if rate in ("inf", float("inf")):
        return demand_of(bench, spec, np.zeros(num_requests)), ("no start_times: all requests sent at once",)
    if not isinstance(rate, int | float) or not rate > 0 or "ramp_up_strategy" in bench.scalars:
        what = "has no `start_times`, and no constant `request_rate` to draw them from"
        raise TraceError(bench.path, None, f"{what}; record it with a version of vLLM that writes them")
    burstiness = float(bench.scalars.get("burstiness") or 1.0)
    spread = GammaArrivals(request_rate=float(rate), burstiness=burstiness, rescale_to_rate=True)
    times = arrival_times(spread, stream(replay.scenario.seed, "arrivals"), Extent(num_requests))
    note = f"no start_times: arrivals drawn at {rate:g} requests/s, so TTFT can only agree on average"
    return demand_of(bench, spec, times), (note,)
