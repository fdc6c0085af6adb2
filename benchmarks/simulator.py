"""How fast the simulator runs: `make bench` prints the table and writes benchmarks/latest.json.

Each workload is simulated in processes of its own, step by step (`plain`) and with leaps (`leap`), by simllm
as it is installed; where that is compiled (`simllm --version`), leaps are measured once more in pure Python
(`leap_pure`). The best of a few repetitions counts. `wall_s` is `simulate` from loaded requests to `Result`,
with request rows and without step rows; tokens are output tokens. The Azure hour is read below
${SIMLLM_TRACES}; where that is not set, a synthetic hour of the same statistics stands in, and the file says
so.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from simpy import Environment
from simpy.events import Event

from simllm.hot_modules import variant
from simllm.hwmodels.step import DecodeGroup, DecodeLine, StepCost, StepShape
from simllm.sim.run import Prepared, prepare, simulate_prepared
from simllm.sim.scenario import SHIPPED_SCENARIOS, load_scenario, parse_scenario

LATEST = Path(__file__).with_name("latest.json")
PLAIN, LEAP, LEAP_PURE = "plain", "leap", "leap_pure"
_new = tuple.__new__  # named tuples without the Python call of their own constructors


@dataclass(frozen=True, slots=True)
class AffineStepModel:
    """The cheapest honest cost: a step takes a base, so much per prompt token, decode and context token.

    The figures are those of an 8B model on one H100-class GPU to one digit; only speed depends on them.
    """

    base_s: float = 6e-3
    token_s: float = 2e-5
    decode_s: float = 2e-5
    context_s: float = 4e-8
    terms: tuple[str, ...] = ("base", "tokens", "context")

    def predict(self, shape: StepShape) -> StepCost:
        """Returns the cost of one step."""
        tokens = decodes = context = 0
        for query_len, _, count in shape.chunks:
            tokens += query_len * count
        for _, count, sum_context, _ in shape.decodes:
            decodes, context = decodes + count, context + sum_context
        tokens_s = tokens * self.token_s + decodes * self.decode_s
        context_s = context * self.context_s
        duration_s = self.base_s + tokens_s + context_s
        return StepCost(duration_s, (self.base_s, tokens_s, context_s), "affine")

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        """Returns the one straight line that decodes are."""
        _, num_decodes, sum_context, _ = decodes
        base_s, decodes_s, context_s = self.base_s, num_decodes * self.decode_s, sum_context * self.context_s
        slope_s, duration_s = num_decodes * self.context_s, base_s + decodes_s + context_s
        terms, slopes = (base_s, decodes_s, context_s), (0.0, 0.0, slope_s)
        return _new(DecodeLine, (duration_s, slope_s, max_steps, terms, slopes, "affine", False))


def _pool(**settings: Any) -> dict[str, Any]:
    return {"model": "llama-3.1-8b", "device": "h100-sxm", "kv": {"enable_prefix_caching": False}, **settings}


def _azure(pool: dict[str, Any], *, rate_scale: float = 1.0) -> Prepared:
    """The Azure conversation hour on `pool`, or the shipped stand-in."""
    shipped, _ = load_scenario("02-azure-hour")
    hour = shipped.workload.model_dump(mode="json")
    fallback = hour["fallback"]
    hour["rate_scale"] = rate_scale
    fallback["arrivals"]["request_rate"] *= rate_scale
    return _prepare(hour, pool)


def _long_output() -> Prepared:
    fixed = {"kind": "synthetic", "num_requests": 300, "arrivals": {"kind": "burst"}}
    lengths = {
        "prompt_tokens": {"kind": "fixed", "tokens": 1024},
        "output_tokens": {"kind": "fixed", "tokens": 16384},
    }
    return _prepare(fixed | lengths, _pool())


def _mooncake() -> Prepared:
    """The whole Mooncake conversation trace with prefix caching, or the shipped stand-in: 9.2 M blocks."""
    shipped, _ = load_scenario("07-replay-mooncake")
    trace = shipped.workload.model_dump(mode="json")
    trace["num_requests"], trace["fallback"]["num_requests"] = None, 12_031
    return _prepare(trace, _pool(replicas=4, kv={}))


def _million() -> Prepared:
    shipped, _ = load_scenario("02-azure-hour")
    hour = shipped.workload.model_dump(mode="json")["fallback"]
    hour["num_requests"], hour["duration_s"] = 1_000_000, None
    hour["arrivals"]["request_rate"] *= 64
    return _prepare(hour, _pool(replicas=64))


def _prepare(workload: dict[str, Any], pool: dict[str, Any]) -> Prepared:
    run = {"record_steps": False}
    scenario = parse_scenario({"workload": workload, "pools": [pool], "run": run})
    return prepare(scenario, SHIPPED_SCENARIOS)


def _affine(prepared: Prepared) -> Prepared:
    cheap = tuple(replace(pool, step_model=AffineStepModel()) for pool in prepared.deployments)
    return replace(prepared, deployments=cheap)


WORKLOADS: dict[str, tuple[Callable[[], Prepared], int]] = {
    "azure_hour": (lambda: _affine(_azure(_pool())), 9),
    "azure_hour_prefix_cache": (lambda: _affine(_azure(_pool(kv={"enable_prefix_caching": True}))), 9),
    "azure_hour_real_cost": (lambda: _azure(_pool()), 9),
    "azure_x8": (lambda: _affine(_azure(_pool(replicas=8), rate_scale=8.0)), 9),
    "mooncake_conversation": (lambda: _affine(_mooncake()), 5),
    "long_output": (lambda: _affine(_long_output()), 9),
    "million": (lambda: _affine(_million()), 1),
}


def measure(workload: str, design: str) -> dict[str, float]:
    """Returns the figures of one workload in this process."""
    make, repetitions = WORKLOADS[workload]
    prepared = make()
    run = prepared.scenario.run.model_copy(update={"leaps": design != PLAIN})
    prepared = replace(prepared, scenario=prepared.scenario.model_copy(update={"run": run}))
    walls = []
    for _ in range(1 if design == PLAIN else repetitions):
        started = perf_counter()
        result = simulate_prepared(prepared)
        walls.append(perf_counter() - started)
    wall_s = min(walls)
    summary = result.summary()
    return {
        "wall_s": wall_s,
        "tokens_per_s": summary["total_output_tokens"] / wall_s,
        "requests_per_s": summary["completed"] / wall_s,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_command() -> float:
    """Returns the wall time [s] of `simllm run` of the Azure hour, files written, best of three."""
    walls = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "simllm.cli",
                "run",
                "02-azure-hour",
                "-q",
                "-o",
                f"{folder}/run",
            ]
            started = perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            walls.append(perf_counter() - started)
    return min(walls)


def bare_timeout_us() -> float:
    """Returns what an event costs in bare SimPy [us], best of five: how fast the machine is just now."""

    def wait(clock: Environment) -> Generator[Event, None, None]:
        for _ in range(30_000):
            yield clock.timeout(1)

    walls = []
    for _ in range(5):
        clock = Environment()
        clock.process(wait(clock))
        started = perf_counter()
        clock.run()
        walls.append(perf_counter() - started)
    return min(walls) / 30_000 * 1e6


def _in_process_of_its_own(workload: str, design: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", workload, "--design", design]
    environment = os.environ | ({"SIMLLM_PURE_PYTHON": "1"} if design == LEAP_PURE else {})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _table(results: dict[str, dict[str, dict[str, float]]]) -> Table:
    columns = ("workload", "design", "wall [s]", "M tokens/s", "k requests/s", "peak RSS [MB]", "speed-up")
    table = Table(*columns)
    for workload, designs in results.items():
        for design, figures in designs.items():
            plain_s = designs[PLAIN]["wall_s"]
            table.add_row(
                workload,
                design,
                f"{figures['wall_s']:.3f}",
                f"{figures['tokens_per_s'] / 1e6:.2f}",
                f"{figures['requests_per_s'] / 1e3:.1f}",
                f"{figures['peak_rss_mb']:.0f}",
                f"{plain_s / figures['wall_s']:.1f}",
            )
    return table


def main(
    one: Annotated[str | None, typer.Option(help="Measure one workload only and print JSON.")] = None,
    design: Annotated[str, typer.Option(help="plain, leap or leap_pure, with --one.")] = LEAP,
    workloads: Annotated[list[str] | None, typer.Option(help="Measure these only; writes no file.")] = None,
) -> None:
    """Measures everything, prints the table and writes benchmarks/latest.json."""
    if one is not None:
        typer.echo(json.dumps(measure(one, design)))
        return
    designs = (PLAIN, LEAP, LEAP_PURE) if variant() == "compiled" else (PLAIN, LEAP)
    results = {
        workload: {design: _in_process_of_its_own(workload, design) for design in designs}
        for workload in workloads or WORKLOADS
    }
    console = Console(width=110)
    console.print(_table(results))
    if workloads:
        return
    command_s = measure_command()
    timeout_us = bare_timeout_us()
    console.print(f"simllm as installed: {variant()}")
    console.print(f"simllm run of the Azure hour, files written: {command_s:.2f} s")
    console.print(f"an event in bare SimPy: {timeout_us:.2f} us")
    has_trace = bool(os.environ.get("SIMLLM_TRACES"))
    about = {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "simllm": variant(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "azure_hour": "public trace" if has_trace else "synthetic stand-in",
        "command_wall_s": command_s,
        "bare_timeout_us": timeout_us,
    }
    LATEST.write_text(json.dumps({**results, "about": about}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
