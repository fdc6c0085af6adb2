"""One scenario under several schedulers, on the same requests: `simllm compare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ...errors import Problem, ScenarioError, nearest_choice
from ..outcome.summary import Summary
from ..policy.scheduler import scheduler_names, scheduler_settings
from ..run import prepare, simulate_prepared
from ..scenario import load_scenario
from ..workload.build import build_demand

if TYPE_CHECKING:
    import pandas as pd

LATENCIES = ("ttft", "tpot", "e2el")
# What the table shows of a run's summary, and how its columns are headed.
COLUMNS = {
    "output_throughput": "output tok/s",
    "request_throughput": "req/s",
    "mean_ttft_ms": "TTFT mean [ms]",
    "p99_ttft_ms": "TTFT p99 [ms]",
    "mean_tpot_ms": "TPOT mean [ms]",
    "p99_tpot_ms": "TPOT p99 [ms]",
    "mean_e2el_ms": "E2EL mean [ms]",
    "num_preemptions": "preemptions",
    "rejected": "rejected",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One scheduler's run: what it was called, its summary, and the latencies of its requests [ms]."""

    name: str
    summary: Summary
    latencies_ms: dict[str, NDArray[np.float64]]


def compare(
    source: str | Path,
    schedulers: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    allow_python: bool = False,
    on_run: Callable[[str], None] | None = None,
) -> list[Compared]:
    """Runs a scenario once per scheduler, each on the very same requests.

    schedulers: kinds, or names of their variants, each with settings of its own behind colons if need be:
    `sglang:schedule_policy=lpm`. They replace the schedulers of all pools; what else the scenario says
    stays. on_run(name) is called before each run.
    Raises: ScenarioError for an unknown scheduler, and as `simulate` does.
    """
    settings = [settings_of(name) for name in schedulers]
    original, folder = load_scenario(source, overrides)
    demand = build_demand(original.workload, seed=original.seed, base_dir=folder)
    prepared = []
    for chosen in settings:
        replaced = [
            f"pools.{number}.scheduler={yaml.safe_dump(chosen, default_flow_style=True)}"
            for number in range(len(original.pools))
        ]
        scenario, _ = load_scenario(source, [*overrides, *replaced])
        prepared.append(prepare(scenario, folder, demand, allow_python=allow_python))
    runs = []
    for name, ready in zip(schedulers, prepared, strict=True):
        if on_run is not None:
            on_run(name)
        result = simulate_prepared(ready)
        requests = result.requests
        latencies = {metric: requests[f"{metric}_ms"].to_numpy(dtype=float) for metric in LATENCIES}
        runs.append(Compared(name, result.summary(), latencies))
    return runs


def settings_of(name: str) -> dict[str, Any]:
    """Returns the settings that `name[:field=value...]` stands for.

    Raises: ScenarioError for a name that no scheduler has, or a field without a value.
    """
    kind, *fields = name.split(":")
    settings = scheduler_settings(kind)
    if settings is None:
        names = scheduler_names()
        what = f"is no scheduler; there are {', '.join(names)}"
        raise ScenarioError([Problem("--schedulers", what, kind, nearest_choice(kind, names))])
    for field in fields:
        key, separator, text = field.partition("=")
        if not separator or not key:
            raise ScenarioError([Problem("--schedulers", "must be name:field=value", name)])
        settings = {**settings, key: yaml.safe_load(text)}
    return settings


def comparison_frame(runs: Sequence[Compared]) -> pd.DataFrame:
    """Returns a row per scheduler with the columns of `COLUMNS`."""
    import pandas as pd

    rows = [{"scheduler": run.name, **{key: run.summary[key] for key in COLUMNS}} for run in runs]
    return pd.DataFrame(rows)
