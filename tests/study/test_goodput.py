"""The search for goodput, on a small system whose answer can be checked by playing it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sim.small import scenario, small, write

import simllm
from simllm.errors import ScenarioError
from simllm.sim.run import simulate
from simllm.sim.study.goodput import goodput
from simllm.sim.study.goodput_plot import goodput_html
from simllm.sim.study.goodput_result import Goodput
from simllm.sim.study.rate import rate_knob
from simllm.sim.study.slo import parse_slo

SLO = "ttft_p95=100ms,tpot_p95=15ms"
LONGER = "workload.num_requests=200"


@pytest.fixture(scope="module")
def found() -> Iterator[Goodput]:
    yield goodput(scenario(LONGER), SLO, num_seeds=3, tolerance=0.05)


def shares(request_rate: float, seed: int) -> dict[str, float]:
    rate = f"workload.arrivals.request_rate={request_rate}"
    return parse_slo(SLO).shares(simulate(scenario(LONGER, rate, f"seed={seed}")).requests)


def test_the_slo_is_kept_at_the_rate_and_lost_just_above(found: Goodput) -> None:
    low, high = found.bracket
    assert low is not None and high is not None
    assert low < high <= low * 1.05
    for criterion, needed in {"ttft_p95": 0.95, "tpot_p95": 0.95}.items():
        assert sum(shares(low, seed)[criterion] for seed in range(3)) / 3 >= needed
    # Not the mean but its lower bound decides: above, it is less, though the mean may be enough.
    assert found.trials[high].margin < 0 <= found.trials[low].margin


def test_a_trial_holds_what_runs_of_its_own_give(found: Goodput) -> None:
    trial = found.trials[found.request_rate]
    assert trial.shares("tpot_p95") == [shares(found.request_rate, seed)["tpot_p95"] for seed in range(3)]


def test_single_runs_lose_it_around_the_rate(found: Goodput) -> None:
    assert found.breaking_rate is not None
    assert found.breaking_rate.low < found.breaking_rate.mean < found.breaking_rate.high
    assert found.request_rate < found.breaking_rate.high, "with confidence is less than on average"


def test_cost_follows_from_gpus_and_price(found: Goodput) -> None:
    usd = found.fleet.usd_per_hour
    assert usd is not None and found.requests_per_usd == pytest.approx(found.request_rate * 3600 / usd)
    assert found.output_throughput is not None
    wanted = usd / (found.output_throughput * 3600) * 1e6
    assert found.usd_per_million_output_tokens == pytest.approx(wanted)
    assert found.request_rate_per_gpu == found.request_rate


def test_the_tables_are_tidy(found: Goodput) -> None:
    rates = list(found.trials)
    assert list(found.curve["request_rate"]) == rates == sorted(rates)
    assert len(found.runs) == len(rates) * 3 * 2
    assert {"ttft_p95_share", "ttft_p95_share_low", "ttft_p95_ms", "is_unstable"} <= set(found.curve)
    assert json.loads(json.dumps(found.summary(), allow_nan=False))["request_rate"] == found.request_rate


def test_the_page_shows_curve_limits_and_the_rate(found: Goodput) -> None:
    page = goodput_html(found)
    assert f"{found.request_rate:g} req/s within the SLO" in page
    assert all(text in page for text in ("ttft_p95", "request rate [req", "limit dashed"))


def test_more_replicas_carry_more() -> None:
    rates = [
        goodput(scenario(LONGER, f"pools.0.replicas={count}"), SLO, num_seeds=2, tolerance=0.1).request_rate
        for count in (1, 2)
    ]
    assert rates[1] > 1.4 * rates[0]


def test_a_limit_below_what_a_lone_request_takes_is_never_kept() -> None:
    result = goodput(scenario("workload.num_requests=20"), "ttft_p50=1us", num_seeds=2)
    assert (result.request_rate, result.best) == (0, None)
    assert "the SLO is not kept even at" in result.warnings[0]
    assert "though requests hardly ever meet there: ttft_p50 fails" in result.warnings[0]


def test_a_limit_that_never_binds_is_said_to_be_so() -> None:
    result = goodput(scenario("workload.num_requests=5"), "e2el_p50=60min", num_seeds=1)
    assert result.bracket.high is None
    assert any("kept at every rate tried" in warning for warning in result.warnings)


def test_a_rate_beyond_capacity_is_called_unstable() -> None:
    # A minute to the first token is kept far beyond what one GPU serves, as long as the run is short.
    result = goodput(scenario("workload.num_requests=600"), "ttft_p50=5s", num_seeds=2, tolerance=0.3)
    assert result.best is not None and result.best.is_unstable
    assert any("the system is unstable, or the run too short" in warning for warning in result.warnings)


def test_a_trace_is_played_faster_and_runs_once(tmp_path: Path) -> None:
    lines = [f"2023-11-16 18:{15 + second // 60}:{second % 60:02d},400,40" for second in range(60)]
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines) + "\n")
    traced = write(tmp_path, "workload={kind: azure, path: trace.csv}")
    result = goodput(traced, "ttft_p95=100ms", tolerance=0.1)
    assert result.knob.path == "workload.rate_scale"
    # One request a second as recorded: the scale is the rate.
    assert result.knob.setting(result.request_rate) == pytest.approx(result.request_rate)
    assert result.breaking_rate is None
    assert any("no confidence interval" in warning for warning in result.warnings)
    played = simulate(
        scenario(f"workload={{kind: azure, path: {tmp_path}/trace.csv, rate_scale: {result.request_rate}}}")
    )
    assert parse_slo("ttft_p95=100ms").shares(played.requests)["ttft_p95"] >= 0.95


def test_the_rate_of_conversations_is_told_in_requests(tmp_path: Path) -> None:
    # Two conversations, of three and one answered messages: two requests an arrival on average.
    lines = [
        {"conversations": [{"from": "human", "value": "a" * 40}, {"from": "gpt", "value": "b" * 40}] * turns}
        for turns in (3, 1)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arrivals = {"kind": "poisson", "request_rate": 5}
    workload = {"kind": "sharegpt", "path": "chats.jsonl", "arrivals": arrivals}
    knob = rate_knob({**small(), "workload": workload}, tmp_path)
    assert (knob.start, knob.setting(10.0)) == (10, 5)
    assert knob.scenario(8.0, seed=3).workload.model_dump()["arrivals"]["request_rate"] == 4


def test_an_absent_trace_is_its_fallback(tmp_path: Path) -> None:
    fallback = small("workload.num_requests=20")["workload"]
    traced = {**small(), "workload": {"kind": "azure", "path": "gone.csv", "fallback": fallback}}
    result = goodput(
        simllm.sim.scenario.parse_scenario(traced), "ttft_p50=1us", num_seeds=1, base_dir=tmp_path
    )
    assert result.knob.path == "workload.arrivals.request_rate"


def test_the_scenario_s_own_limits_are_the_default() -> None:
    result = goodput(scenario("slo={ttft_ms: 0.001}", "workload.num_requests=20"), num_seeds=1)
    assert result.objective.needed == {"attainment": 0.9}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("workload.arrivals={kind: closed_loop, num_clients: 4}", "has no one request rate to search"),
        ("workload.arrivals={kind: burst}", "has no one request rate to search"),
        ("pools.0.model=llama-3.1-70b", "does not fit"),
    ],
)
def test_what_cannot_be_searched_is_refused(override: str, message: str) -> None:
    with pytest.raises(simllm.SimllmError, match=message):
        goodput(scenario(override), SLO)


def test_without_an_slo_there_is_nothing_to_search() -> None:
    with pytest.raises(ScenarioError, match=r"^--slo: is required, as in ttft_p99=500ms,tpot_p99=50ms"):
        goodput(scenario())
