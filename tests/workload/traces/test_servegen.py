"""ServeGen's clients: a folder of our own making, worked out by hand, and the shipped fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simllm.errors import TraceError
from simllm.sim.workload import Demand
from simllm.sim.workload.servegen import window_arrivals
from simllm.sim.workload.traces.servegen import ArrivalWindow

Build = Callable[..., Demand]
Put = Callable[[str, str], str]
SHIPPED = Path(__file__).parents[3] / "scenarios" / "data" / "deepseek-r1.yaml"
DATASET = (
    '{"0": {"input_tokens": "{7: 1.0}", "output_tokens": "{10: 0.5, 20: 0.5}", "reason_ratio": "{0.5: 1.0}"},'
    ' "21600": {"input_tokens": "{}", "output_tokens": "{}", "reason_ratio": "{}"}}'
)
TRACE = "0,0,0,,0,0\n600,0.1,1.0,Gamma,1.0,10.0\n1200,0.05,2.0,Weibull,0.6,13.0\n"
WORKLOAD = {"kind": "servegen", "path": ".", "duration_s": 3600}


@pytest.fixture
def folder(put: Put) -> None:
    """Two clients of 60 + 30 requests each."""
    for number in (0, 1):
        put(f"chunk-{number}-trace.csv", TRACE)
        put(f"chunk-{number}-dataset.json", DATASET)


@pytest.mark.usefixtures("folder")
def test_as_many_requests_arrive_in_a_window_as_were_counted(build: Build) -> None:
    demand = build(WORKLOAD)
    # Two clients, 0.1 x 600 and 0.05 x 600.
    assert np.bincount((demand.arrived_at // 600).astype(int)).tolist() == [0, 120, 60]
    assert set(demand.prompt_tokens.tolist()) == {7}
    assert set(demand.output_tokens.tolist()) == {10, 20}
    np.testing.assert_array_equal(demand.reasoning_tokens * 2, demand.output_tokens)


@pytest.mark.usefixtures("folder")
def test_a_part_of_the_day_begins_at_zero(build: Build) -> None:
    demand = build({**WORKLOAD, "start_s": 1200, "duration_s": 600})
    assert len(demand) == 60
    assert 0 <= demand.arrived_at[0] < demand.arrived_at[-1] < 600


@pytest.mark.usefixtures("folder")
def test_a_budget_cuts_the_reasoning_of_a_trace(build: Build) -> None:
    demand = build({**WORKLOAD, "reasoning": {"budget_tokens": 6}})
    # 10 = 5 + 5 stays, 20 = 10 + 10 becomes 6 + 10.
    assert set(zip(demand.reasoning_tokens.tolist(), demand.output_tokens.tolist(), strict=True)) == {
        (5, 10),
        (6, 16),
    }


@pytest.mark.parametrize("distribution", ["gamma", "weibull"])
def test_gaps_have_the_shape_of_their_distribution(distribution: str) -> None:
    window = ArrivalWindow(0.0, 600.0, 20_000, distribution, 0.5)
    gaps = np.diff(window_arrivals(window, np.random.default_rng(0)))
    # cv of Gamma 1 / sqrt(0.5) = 1.414; of Weibull sqrt(G(5) / G(3)^2 - 1) = sqrt(24 / 4 - 1) = 2.236.
    expected = {"gamma": 1.414, "weibull": 2.236}[distribution]
    assert gaps.std() / gaps.mean() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("chunk-0-trace.csv", "0,0,0,,0,0\n600,x,1,Gamma,1,1\n", r"trace\.csv:2: must hold start, rate, cv"),
        ("chunk-0-trace.csv", "0,-1,1,Gamma,1,1\n", r"trace\.csv:1: numbers must be finite and not negative"),
        ("chunk-0-trace.csv", "0,1,1,Pareto,1,1\n", r"trace\.csv:1: distribution must be Gamma or Weibull"),
        ("chunk-0-trace.csv", "0,1,1,Gamma,0,1\n", r"trace\.csv:1: shape must be above 0"),
        ("chunk-0-dataset.json", "[]", "is no dataset of ServeGen"),
        ("chunk-0-dataset.json", '{"0": {"input_tokens": "{}"}}', "has no 'output_tokens'"),
        (
            "chunk-0-dataset.json",
            '{"0": {"input_tokens": "{1: -2}", "output_tokens": "{1: 1}"}}',
            "input_tokens: values and shares must be finite and not negative",
        ),
        (
            "chunk-0-dataset.json",
            '{"0": {"input_tokens": "__import__", "output_tokens": "{1: 1}"}}',
            "input_tokens must be {value: share, ...}",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_bad_file_is_named(build: Build, put: Put, name: str, text: str, what: str) -> None:
    put(name, text)
    with pytest.raises(TraceError, match=what):
        build(WORKLOAD)


def test_a_folder_without_clients_is_no_trace(build: Build) -> None:
    with pytest.raises(TraceError, match=r"holds no chunk-N-trace\.csv"):
        build(WORKLOAD)


@pytest.mark.parametrize("text", ["a: [", "format: other\n", "- 1\n"])
def test_a_bad_fit_is_named(build: Build, put: Put, text: str) -> None:
    with pytest.raises(TraceError, match=r"fit\.yaml: is no"):
        build({**WORKLOAD, "path": put("fit.yaml", text)})


def test_the_shipped_fit_plays_reasoning_requests(build: Build) -> None:
    demand = build({**WORKLOAD, "path": str(SHIPPED), "start_s": 36000, "duration_s": 600})
    assert len(demand) > 1000
    assert 0.5 < demand.reasoning_tokens.sum() / demand.output_tokens.sum() < 0.95
    assert (demand.reasoning_tokens < demand.output_tokens).all()


def test_the_shipped_fit_is_close_to_the_published_clients(build: Build) -> None:
    traces = os.environ.get("SIMLLM_TRACES", "")
    if not (Path(traces) / "servegen").is_dir():
        pytest.skip("needs ServeGen's files below SIMLLM_TRACES")
    hours = {"kind": "servegen", "start_s": 36000, "duration_s": 7200}
    real = build({**hours, "path": "${SIMLLM_TRACES}/servegen/data/reason/deepseek-r1"})
    fit = build({**hours, "path": str(SHIPPED)})
    assert len(fit) == pytest.approx(len(real), rel=0.01)
    assert fit.output_tokens.mean() == pytest.approx(real.output_tokens.mean(), rel=0.05)
