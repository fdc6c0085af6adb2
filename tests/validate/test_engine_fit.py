"""Constants of an engine from its recorded steps: what is compared, and that a fit finds what was put in."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from simllm.cli import main
from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.engine_profile import EngineOverhead, load_engine_profile
from simllm.hwmodels.step import StepCost, StepShape
from simllm.sim.validate.emulate import emulate
from simllm.sim.validate.engine_fit import BOUNDS, EngineRun, cells, fit_engine
from simllm.sim.validate.recorded_steps import RecordedStep

from .handmade import write_bench, write_steps
from .launched import LaunchedModel, recorded, self_consistent

NO_GRAPHS = CudaGraphSizes(())
TRUE = EngineOverhead(decode_ratio=1.2, eager_launch_s=40e-6)
# 30 decodes of 64 requests, then 5 steps with a short prompt beside them.
HELD = ([(64, 0)] * 30 + [(64, 16)] * 5) * 8


class EngineModel(LaunchedModel):
    """Decodes take 4 ms and 6 ms x decode_ratio, with prompts 1 ms more; the CPU launches 500 kernels."""

    def __init__(self, overhead: EngineOverhead, noise: Sequence[float] = ()) -> None:
        decode_s = 0.004 + 0.006 * overhead.decode_ratio
        super().__init__(decode_s, decode_s + 0.001, 500 * overhead.eager_launch_s)
        self._noise = iter(noise)

    def predict(self, shape: StepShape) -> StepCost:
        cost, factor = super().predict(shape), next(self._noise, 1.0)
        return cost._replace(duration_s=cost.duration_s * factor, waiting_s=cost.waiting_s * factor)


def run_of(steps: Sequence[RecordedStep], *, depth: int = 2, schedule_s: float = 0.0) -> EngineRun:
    return EngineRun("made", steps, EngineModel, NO_GRAPHS, None, depth, num_gpus=1, schedule_s=schedule_s)


def made_with(overhead: EngineOverhead, noise: Sequence[float] = ()) -> list[RecordedStep]:
    """Returns the record of an engine with these constants, its steps' times scattered by `noise`."""

    def emulated(steps: Sequence[RecordedStep]) -> list[float]:
        model = EngineModel(overhead, noise)
        return emulate(steps, model, NO_GRAPHS, power=None, depth=2, launches_in_engine=True, schedule_s=0.0)

    return self_consistent(HELD, emulated)


def kinds(steps: Sequence[RecordedStep], overhead: EngineOverhead = TRUE) -> dict[str, float]:
    """Returns predicted over measured times by what is compared; the last one of each kind."""
    return {cell.kind: exp(cell.log_ratio) for cell in cells(run_of(steps), overhead)}


def decodes(period_ms: float, count: int) -> list[tuple[float, float, tuple[int, int]]]:
    """Decodes of 64 requests with two steps in flight, each `period_ms` long."""
    ends = [period_ms * (place + 1) for place in range(count)]
    return [(at, end, (64, 0)) for at, end in zip([0.0, 1.0, *ends], ends, strict=False)]


def test_a_record_made_with_the_same_constants_has_no_errors() -> None:
    found = cells(run_of(made_with(TRUE)), TRUE)
    assert [cell.kind for cell in found] == ["busy", "prompts", "decode"]
    assert [cell.log_ratio for cell in found] == pytest.approx([0.0] * 3, abs=1e-9)


def test_the_whole_busy_time_and_the_median_decode_are_compared() -> None:
    # Predicted: 4 + 6 x 1.2 = 11.2 ms a step; measured 10 ms, but for one of 30 ms, which no median sees.
    steps = decodes(10, 26)
    steps[13:] = [(at + 20 * (at > 130), end + 20, held) for at, end, held in steps[13:]]
    found = kinds(recorded(steps))
    assert found["busy"] == pytest.approx(25 * 11.2 / (24 * 10 + 30))
    assert found["decode"] == pytest.approx(1.12)
    assert "prompts" not in found


def test_a_median_needs_twenty_steps_that_no_prompt_disturbs() -> None:
    assert "decode" not in kinds(recorded(decodes(10, 23)))
    assert "decode" in kinds(recorded(decodes(10, 24)))


def test_prompts_count_in_stretches_with_the_steps_that_repay_their_lateness() -> None:
    # 4 decodes, `count` steps with prompts, 6 decodes; all of 10 ms. Predicted: decodes of 11.2 ms.
    def with_prompts(count: int) -> list[RecordedStep]:
        rows = decodes(10, 10 + count)
        rows[4 : 4 + count] = [(at, end, (64, 16)) for at, end, _ in rows[4 : 4 + count]]
        return recorded(rows)

    assert "prompts" not in kinds(with_prompts(2))
    windows = [cell for cell in cells(run_of(with_prompts(3)), TRUE) if cell.kind == "prompts"]
    assert [cell.num_steps for cell in windows] == [3 + 2]


def test_of_a_synchronous_engine_long_prompts_are_compared() -> None:
    # Predicted: 12.2 ms, or the 20 ms of its launches; scheduling adds 1 ms. Measured 28 ms. Short prompts
    # and decodes tell more of the engine than of the GPU.
    rows = [(0, 28, (0, 1000)), (50, 60, (64, 0)), (80, 100, (0, 100)), (120, 148, (0, 1000))]
    (cell,) = cells(run_of(recorded(rows), depth=1, schedule_s=0.001), TRUE)
    assert (cell.kind, cell.num_steps) == ("prompt", 2)
    assert exp(cell.log_ratio) == pytest.approx(21 / 28)


def test_a_fit_finds_the_constants_that_made_the_record() -> None:
    # Eight runs whose steps scatter by 5 %.
    noise = np.random.default_rng(7).lognormal(0.0, 0.05, (8, len(HELD)))
    fit = fit_engine([run_of(made_with(TRUE, row.tolist())) for row in noise])
    for name in ("decode_ratio", "eager_launch_s"):
        found, true = fit.constants[name], getattr(TRUE, name)
        assert found.low <= true <= found.high
        assert found.value == pytest.approx(true, rel=0.02)
        assert 0.0 < found.high - found.low < 0.1 * true
    assert [run.run for run in fit.runs] == ["made"] * 8
    assert max(abs(run.busy_error) for run in fit.runs) < 0.01


def test_constants_that_no_run_shows_are_as_uncertain_as_physics_allows() -> None:
    noise = np.random.default_rng(3).lognormal(0.0, 0.05, (4, len(HELD)))
    fit = fit_engine([run_of(made_with(TRUE, row.tolist())) for row in noise])
    assert set(fit.constants) == set(BOUNDS)
    for name in ("moe_ratio", "large_reduce_ratio", "eager_moe_layer_s"):
        assert (fit.constants[name].low, fit.constants[name].high) == BOUNDS[name]


def test_a_fit_weighs_all_runs() -> None:
    # Two engines that differ by 20 % in decodes: the constants of both lie between.
    records = [made_with(replace(TRUE, decode_ratio=ratio)) for ratio in (1.0, 1.2)]
    fit = fit_engine([run_of(steps) for steps in records])
    assert 1.0 < fit.constants["decode_ratio"].value < 1.2
    assert fit.runs[0].busy_error > 0 > fit.runs[1].busy_error


STEPS = [
    *(f"{8000 * place},{8000 * place + 15000},8,{800 + 8 * place}," for place in range(40)),
    *(f"{320000 + 12000 * place},{320000 + 12000 * place + 23000},8,1200,700:700" for place in range(6)),
]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs `simllm fit-engine` on results, into `mine.yaml` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        command = ["simllm", "fit-engine", *map(str, arguments), "-o", "mine.yaml", "--name", "mine"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


def with_steps(result: Path, rows: Sequence[str] = STEPS) -> Path:
    """Writes the record that lies beside a result."""
    plain = write_steps(result.parent, rows, "plain.csv")
    stem = result.name.removesuffix(".gz").removesuffix(".json")
    result.with_name(f"{stem}.steps.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    return result


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_the_command_writes_a_profile_that_a_scenario_can_name(fit: Cli, tmp_path: Path, name: str) -> None:
    code, out, _ = fit(with_steps(write_bench(tmp_path, name)))
    assert code == 0
    written = load_engine_profile(tmp_path / "mine.yaml")
    assert (written.engine, written.version, written.device) == ("vllm", "0.22.1", "h200-sxm")
    assert set(written.constants) == set(BOUNDS)
    (run,) = written.runs
    assert run.run == f"{tmp_path.name}/run"
    assert f"{tmp_path.name}/run" in out
    assert all(constant in out for constant in BOUNDS)


def test_the_same_runs_give_the_same_bytes(fit: Cli, tmp_path: Path) -> None:
    result = with_steps(write_bench(tmp_path))
    contents = []
    for _ in range(2):
        fit(result)
        contents.append((tmp_path / "mine.yaml").read_bytes())
    assert contents[0] == contents[1]
    assert yaml.safe_load(contents[0])["kind"] == "fitted"


def test_runs_that_do_not_tell_of_the_front_end_are_named_with_the_reason(fit: Cli, tmp_path: Path) -> None:
    result = with_steps(write_bench(tmp_path))
    code, out, err = fit(result)
    told = f"{result}: step 1 of the record holds 8 decodes where its requests have 0"
    assert (code, err) == (0, f"not in the front end's fit: {told}\n")
    assert "front end" not in out
    assert load_engine_profile(tmp_path / "mine.yaml").front_end is None


def answered(sent_us: int, prompt: str, num_tokens: int) -> list[str]:
    """Returns the steps of a lone request, decided 1 ms after its sending, then half a step ahead."""
    ends = [sent_us + 1000 + 100_000 * place for place in range(1, num_tokens + 1)]
    first = f"{sent_us + 1000},{ends[0]},0,0,{prompt}"
    return [first, *(f"{end - 150_000},{end},1,{100 + place}," for place, end in enumerate(ends[1:]))]


def test_runs_that_tell_of_the_front_end_bring_its_part(fit: Cli, tmp_path: Path) -> None:
    rows = [
        *answered(0, "100:100", 11),
        *answered(2_000_000, "184:200", 6),
        *answered(3_000_000, "50:50", 1),
    ]
    code, out, err = fit(with_steps(write_bench(tmp_path, start_times=[0.0, 2.0, 3.0]), rows))
    assert (code, err) == (0, "")
    found = load_engine_profile(tmp_path / "mine.yaml").front_end
    assert found is not None
    assert (found.constants.hold_s, found.constants.turnaround_s) == (None, None)
    # Every request found the engine idle and was decided on after 1 ms.
    assert found.constants.request_s.value + found.constants.in_s.value == pytest.approx(1e-3, rel=0.1)
    assert f"of {found.constants.in_s.num_observations}" in out
    assert found.constants.in_s.num_observations == 3


def refusal(outcome: Outcome) -> str:
    """Returns the one line of a user's error; nothing was written."""
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert not Path("mine.yaml").exists()
    return line


def test_a_result_without_an_engine_is_refused(fit: Cli, tmp_path: Path) -> None:
    result = with_steps(write_bench(tmp_path, engine=None))
    assert refusal(fit(result)) == f"error: {result}: has no `engine` block, which a fit needs"


@pytest.mark.parametrize("name", ["run.json", "run.txt"])
def test_a_result_without_its_steps_is_refused(fit: Cli, tmp_path: Path, name: str) -> None:
    stem = name.removesuffix(".json")
    told = refusal(fit(write_bench(tmp_path, name)))
    assert told.startswith(f"error: {tmp_path / stem}.steps.csv.gz: cannot be read: ")


def test_a_run_whose_steps_all_found_an_idle_engine_has_nothing_to_compare(fit: Cli, tmp_path: Path) -> None:
    rows = [f"{20_000 * place},{20_000 * place + 9000},1,100," for place in range(5)]
    told = refusal(fit(with_steps(write_bench(tmp_path), rows)))
    assert told.startswith(f"error: {tmp_path.name}/run: has no steps to compare")


def test_a_file_that_is_not_there_is_refused(fit: Cli) -> None:
    assert "absent.json" in refusal(fit("absent.json"))


def test_runs_of_several_engines_are_refused(fit: Cli, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = with_steps(write_bench(tmp_path / "old", engine={"version": "0.10.0"}))
    told = refusal(fit(with_steps(write_bench(tmp_path)), old))
    assert "the runs are of several engines: [('vllm', '0.10.0'), ('vllm', '0.22.1')]" in told


def test_a_fit_needs_measured_kernels(fit: Cli, tmp_path: Path) -> None:
    told = refusal(fit(with_steps(write_bench(tmp_path)), "--profile", "datasheet:h200-sxm"))
    assert "is no calibrated profile" in told
