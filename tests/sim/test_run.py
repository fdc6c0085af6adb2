"""Whole runs from Python: what goes in decides every byte that comes out."""

from __future__ import annotations

import gc
from pathlib import Path

import pandas as pd
import pytest
import yaml

from simllm.errors import InfeasibleError, ScenarioError
from simllm.sim.outcome.files import RUN_FILES
from simllm.sim.outcome.results import Result
from simllm.sim.run import prepare, simulate
from simllm.sim.scenario import parse_scenario
from simllm.sim.workload.build import build_demand
from simllm.sim.workload.workload_file import write_demand

from .small import scenario, write

# 200 blocks hold 3,200 tokens: requests of up to 960 tokens are preempted now and then.
TIGHT = ("pools.0.kv.num_gpu_blocks=201", "workload.arrivals.request_rate=200")
SHARED = "workload.shared_prefix={num_prefixes: 3, prefix_tokens: {kind: fixed, tokens: 500}}"
NO_CACHE = "pools.0.kv.enable_prefix_caching=false"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replayed(path: Path, *overrides: str) -> Result:
    """Returns the small scenario's run with the rows of `path` as its workload."""
    return simulate(scenario(f"workload={{kind: table, path: {path}}}", *overrides))


def assert_same_rows(one: Result, two: Result) -> None:
    pd.testing.assert_frame_equal(one.requests, two.requests, check_exact=True)
    pd.testing.assert_frame_equal(one.steps, two.steps, check_exact=True)


@pytest.mark.parametrize("overrides", [(), TIGHT, (SHARED, *TIGHT)], ids=["ample", "tight", "shared"])
def test_the_same_scenario_gives_the_same_bytes(overrides: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("one", "two"):
        simulate(scenario(*overrides)).save(tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert set(contents(tmp_path / "one")) == set(RUN_FILES)


def test_another_seed_gives_other_rows() -> None:
    one, two = simulate(scenario()), simulate(scenario("seed=1"))
    assert not one.requests["arrived_at"].equals(two.requests["arrived_at"])


def test_running_the_lock_gives_the_same_bytes_in_every_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    demand = build_demand(scenario(SHARED).workload, seed=0, base_dir=tmp_path)
    write_demand(demand, tmp_path / "there" / "trace.jsonl")
    path = write(tmp_path / "there", "workload={kind: table, path: trace.jsonl}", *TIGHT[:1], "name=locked")
    simulate(path).save(tmp_path / "one")
    simulate(tmp_path / "one" / "scenario.lock.yaml").save(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_requests_table_of_a_run_replays_to_the_same_rows(suffix: str, tmp_path: Path) -> None:
    # One of the requests is larger than the cache, and rejected both times.
    oversize = "workload.prompt_tokens={kind: uniform, min_tokens: 10, max_tokens: 3400}"
    run = simulate(scenario(*TIGHT, oversize, NO_CACHE))
    run.save(tmp_path / "run")
    assert run.summary()["rejected"] > 0
    assert run.requests["num_preemptions"].sum() > 0
    assert_same_rows(run, replayed(tmp_path / "run" / f"requests.{suffix}", TIGHT[0], NO_CACHE))


@pytest.mark.parametrize("overrides", [(NO_CACHE,), (SHARED,)], ids=["no cache", "shared prefixes"])
def test_a_workload_file_replays_to_the_same_rows(overrides: tuple[str, ...], tmp_path: Path) -> None:
    described = scenario(*TIGHT, *overrides)
    run = simulate(described)
    write_demand(build_demand(described.workload, seed=0, base_dir=tmp_path), tmp_path / "trace.jsonl")
    again = replayed(tmp_path / "trace.jsonl", TIGHT[0], *(o for o in overrides if o == NO_CACHE))
    assert_same_rows(run, again)
    assert (run.requests["cached_tokens"].sum() > 0) == (SHARED in overrides)


def test_a_workload_file_of_a_closed_loop_replays_to_the_same_rows(tmp_path: Path) -> None:
    described = scenario("workload.arrivals={kind: closed_loop, num_clients: 5}")
    write_demand(build_demand(described.workload, seed=0, base_dir=tmp_path), tmp_path / "trace.jsonl")
    assert_same_rows(simulate(described), replayed(tmp_path / "trace.jsonl"))


def test_leaps_change_no_row() -> None:
    with_leaps, without = (simulate(scenario(*TIGHT, f"run.leaps={on}")) for on in ("true", "false"))
    for table in ("requests", "steps"):
        one, two = getattr(with_leaps, table), getattr(without, table)
        pd.testing.assert_frame_equal(one, two, rtol=1e-9, atol=1e-9)


def test_the_policy_does_not_reshuffle_the_workload() -> None:
    one = simulate(scenario("router.kind=random", "pools.0.replicas=3")).requests
    two = simulate(scenario("pools.0.scheduler.max_num_seqs=2")).requests
    demanded = ["arrived_at", "prompt_tokens", "requested_output_tokens"]
    assert one[demanded].equals(two[demanded])
    assert set(one["replica"]) == {0, 1, 2}


def test_a_file_is_run_in_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n"
    )
    result = simulate(write(tmp_path, "workload={kind: azure, path: trace.csv}"))
    assert result.requests[["prompt_tokens", "output_tokens"]].to_numpy().tolist() == [[374, 44]]


def test_one_block_is_vllm_s_null_block() -> None:
    result = simulate(scenario("pools.0.kv.num_gpu_blocks=500"))
    assert (result.kv["used_blocks"] + result.kv["free_blocks"] == 499).all()


def test_delays_of_the_front_end_are_part_of_every_latency() -> None:
    delays = [f"pools.0.engine_overhead.frontend_{delay}" for delay in ("in_s=0.25", "out_s=0.5")]
    bare, delayed = (
        simulate(scenario("workload.num_requests=1", *overrides)).requests.iloc[0]
        for overrides in ((), delays)
    )
    assert delayed["queue_ms"] == pytest.approx(bare["queue_ms"] + 250)
    assert delayed["ttft_ms"] == pytest.approx(bare["ttft_ms"] + 750)
    assert delayed["e2el_ms"] == pytest.approx(bare["e2el_ms"] + 750)


def test_without_step_rows_requests_and_summary_are_the_same_but_for_peaks() -> None:
    full, lean = simulate(scenario()), simulate(scenario("run.record_steps=false"))
    assert full.requests.equals(lean.requests)
    one, two = full.summary(), lean.summary()
    assert {key for key in one if one[key] != two[key]} == {
        "scenario_sha256",
        "max_output_tokens_per_s",
        "kv",
        "kv_waste",
    }
    assert two["max_output_tokens_per_s"] is None
    assert two["kv"] == [{**pool, "max_used_blocks": None} for pool in one["kv"]]


def test_progress_is_reported_while_time_goes_on() -> None:
    reports: list[tuple[float, int]] = []
    simulate(
        scenario("workload.num_requests=1000"), on_progress=lambda now, done: reports.append((now, done))
    )
    assert [done for _, done in reports] == [256, 512, 768]
    assert reports == sorted(reports)


def test_the_garbage_collector_is_left_as_it_was() -> None:
    for leave in (gc.disable, gc.enable):
        leave()
        was_enabled = gc.isenabled()
        simulate(scenario("workload.num_requests=2"))
        assert gc.isenabled() == was_enabled


def test_a_model_that_does_not_fit_is_refused_with_the_sum_of_its_bytes() -> None:
    # 70.55e9 parameters of 2 bytes are 131.4 GiB.
    with pytest.raises(InfeasibleError) as caught:
        simulate(scenario("pools.0.model=llama-3.1-70b"))
    said = str(caught.value)
    assert said.startswith("llama-3.1-70b on h100-sxm does not fit: weights 131.4 + activations ")
    parts, total = said.split(": ")[1].split(" GiB per GPU")[0].split(" = ")
    numbers = [float(part.split()[-1]) for part in parts.split(" + ")]
    assert sum(numbers) == pytest.approx(float(total), abs=0.2)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pools.0.model=llama-3.1-8x", "did you mean 'llama-3.1-8b'?"),
        ("pools.0.device=h100", "did you mean 'h100-"),
        ("pools.0.scheduler.max_model_len=131073", "llama-3.1-8b allows 131072 tokens at most"),
    ],
)
def test_what_a_deployment_cannot_have_is_refused_with_its_path(override: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        prepare(scenario(override), Path())
    assert said in str(caught.value)
    path = override.split("=")[0].replace("pools.0", "$.pools[0]")
    assert caught.value.problems[0].path == path


def test_a_resolved_scenario_is_part_of_the_result() -> None:
    meta = simulate(scenario("seed=3")).meta
    assert parse_scenario(yaml.safe_load(meta.lock_yaml)) == scenario("seed=3")
