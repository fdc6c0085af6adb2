"""Plain files of `vllm bench serve`, which tell neither the engine's settings nor, if old, the instants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simllm.errors import ScenarioError, TraceError
from simllm.sim.run import Prepared
from simllm.sim.validate import validate_run
from simllm.sim.validate.replay import GivenSettings, prepare_replay, replay_of
from simllm.sim.workload.traces.vllm_bench import BenchResult

from .handmade import BENCH, write_bench

PLAIN: dict[str, Any] = {"engine": None, "arrivals": None, "cached_tokens": None, "request_rate": 2.0}
MODEL = {"model_id": "meta-llama/Llama-3.1-8B"}
H200 = GivenSettings(device="h200-sxm")


def prepared(path: Path, given: GivenSettings = H200) -> tuple[Prepared, tuple[str, ...]]:
    bench = BenchResult(path, None)
    return prepare_replay(bench, replay_of(bench, given))


def test_a_plain_file_replays_its_own_model_on_the_gpu_that_is_named(tmp_path: Path) -> None:
    ready, notes = prepared(write_bench(tmp_path, **PLAIN, **MODEL))
    assert ready.deployments[0].model.name == "llama-3.1-8b"
    assert ready.demand.arrived_at.tolist() == BENCH["start_times"]
    assert any("no `engine` block" in note for note in notes)


def test_a_plain_file_without_a_gpu_names_the_options(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"run\.json: has no `engine` block: .*--profile.*--scenario"):
        prepared(write_bench(tmp_path, **PLAIN, **MODEL), GivenSettings())


def test_a_plain_file_without_a_model_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"\$\.pools\[0\]\.model: is required"):
        prepared(write_bench(tmp_path, **PLAIN))


def test_a_scenario_s_pools_stand_for_the_engine_of_a_plain_file(tmp_path: Path) -> None:
    scenario = tmp_path / "engine.yaml"
    scenario.write_text(
        "workload: {kind: synthetic, num_requests: 1, arrivals: {kind: poisson, request_rate: 1},"
        " prompt_tokens: {kind: fixed, tokens: 8}, output_tokens: {kind: fixed, tokens: 8}}\n"
        "pools: [{model: llama-3.1-8b, device: h100-sxm, scheduler: {max_num_seqs: 7}}]\n",
        encoding="utf-8",
    )
    given = GivenSettings(scenario=str(scenario), overrides=("pools.0.parallel.tp=2",))
    ready, _ = prepared(write_bench(tmp_path, **PLAIN), given)
    pool = ready.scenario.pools[0]
    assert (pool.device, pool.parallel.tp, pool.scheduler.max_num_seqs) == ("h100-sxm", 2, 7)
    assert len(ready.demand) == 3


def test_arrivals_that_no_file_tells_are_drawn_at_its_rate_and_said_so(tmp_path: Path) -> None:
    # As vLLM scales them: 3 requests at 2 a second span 1.5 s.
    ready, notes = prepared(write_bench(tmp_path, **PLAIN, **MODEL, start_times=None))
    assert ready.demand.arrived_at[-1] == pytest.approx(1.5)
    assert any("no start_times: arrivals drawn at 2 requests/s" in note for note in notes)


def test_an_unlimited_rate_sends_everything_at_once(tmp_path: Path) -> None:
    changes = {**PLAIN, **MODEL, "request_rate": "inf", "start_times": None}
    ready, notes = prepared(write_bench(tmp_path, **changes))
    assert not ready.demand.arrived_at.any()
    assert any("sent at once" in note for note in notes)


def test_a_closed_loop_needs_no_instants(tmp_path: Path) -> None:
    changes = {**PLAIN, **MODEL, "request_rate": "inf", "max_concurrency": 2, "start_times": None}
    ready, _ = prepared(write_bench(tmp_path, **changes))
    assert ready.demand.num_clients == 2


def test_a_file_that_tells_neither_instants_nor_a_rate_is_refused(tmp_path: Path) -> None:
    changes = {**PLAIN, **MODEL, "request_rate": None, "start_times": None}
    with pytest.raises(TraceError, match="no `start_times`, and no constant `request_rate`"):
        prepared(write_bench(tmp_path, **changes))


def test_a_plain_file_is_compared_like_any_other(tmp_path: Path) -> None:
    run = validate_run(write_bench(tmp_path, **PLAIN, **MODEL, latencies=None), given=H200)
    assert run.compared.num_compared == 3
    # Old files have no latencies: the first answer took 1 s to its first token and 10 gaps of 0.1 s.
    np.testing.assert_allclose(run.run.e2el_s, [2.0, 1.5, 0.3])
    assert set(run.compared.errors["e2el"]) == {"mean", "p50", "p90", "p99"}
