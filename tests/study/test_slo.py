"""SLO expressions: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import pandas as pd
import pytest

from simllm.errors import ScenarioError
from simllm.sim.study.slo import Objective, SloTerm, parse_slo

# TTFTs of 10, 20, ... 90 ms and one request that was rejected; TPOT is 5 ms, the first has one token only.
REQUESTS = pd.DataFrame(
    {
        "ttft_ms": [*range(10, 100, 10), None],
        "tpot_ms": [None, *[5.0] * 8, None],
        "status": [*["finished"] * 9, "rejected"],
    }
)


def test_limits_have_units_and_percentiles() -> None:
    slo = parse_slo("ttft_p99=500ms, tpot_p99.9=0.05s,e2el_median=2min,ttfo_max=900us")
    assert slo.terms == (
        SloTerm("ttft", 500, 99),
        SloTerm("tpot", 50, 99.9),
        SloTerm("e2el", 120_000, 50),
        SloTerm("ttfo", 0.9, 100),
    )
    assert slo.attainment is None
    assert slo.needed == {"ttft_p99": 0.99, "tpot_p99.9": 0.999, "e2el_p50": 0.5, "ttfo_p100": 1.0}


def test_a_limit_without_a_percentile_is_each_request_s_and_needs_an_attainment() -> None:
    assert parse_slo("ttft=1s,tpot=50ms").needed == {"attainment": 0.9}
    assert parse_slo("ttft=1s", 0.95).needed == {"attainment": 0.95}
    assert parse_slo("ttft_p50=200ms,ttft=1s").needed == {"ttft_p50": 0.5, "attainment": 0.9}


def test_attainment_beside_percentiles_counts_requests_that_keep_all_limits() -> None:
    assert parse_slo("ttft_p99=500ms,tpot_p99=50ms", 0.9).needed == {
        "ttft_p99": 0.99,
        "tpot_p99": 0.99,
        "attainment": 0.9,
    }


def test_shares_count_a_rejected_request_as_missed_and_one_token_as_kept() -> None:
    # TTFT up to 30 ms: 3 of 10. TPOT up to 5 ms: the 9 that finished.
    shares = parse_slo("ttft_p90=30ms,tpot_p50=5ms", 0.5).shares(REQUESTS)
    assert shares == {"ttft_p90": 0.3, "tpot_p50": 0.9, "attainment": 0.3}
    assert parse_slo("ttft_p90=30ms,tpot=5ms").shares(REQUESTS) == {"ttft_p90": 0.3, "attainment": 0.9}


def test_a_percentile_is_within_its_limit_if_and_only_if_the_share_is_enough() -> None:
    # The 50th percentile is the fifth of ten: 50 ms.
    assert parse_slo("ttft_p50=50ms").percentiles_ms(REQUESTS) == {"ttft_p50": 50}
    assert parse_slo("ttft_p50=50ms").shares(REQUESTS)["ttft_p50"] == 0.5
    assert parse_slo("ttft_p50=49ms").shares(REQUESTS)["ttft_p50"] < 0.5
    assert parse_slo("ttft_p99=1s").percentiles_ms(REQUESTS) == {"ttft_p99": None}, "the rejected one's"


def test_an_objective_survives_the_way_to_a_worker() -> None:
    slo = parse_slo("ttft_p99=500ms,tpot=50ms")
    assert Objective.from_dict(slo.as_dict()) == slo


METRICS = "must limit one of ttft, ttfo, tpot, e2el"
PERCENTILES = "must name a percentile: p1 to p100, median or max"
UNITS = "must have a unit: us, ms, s, min"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tft_p99=1s", f"--slo tft_p99: {METRICS} (got 'tft'); did you mean 'ttft'?"),
        ("ttft_99=1s", f"--slo ttft_99: {PERCENTILES} (got '99'); did you mean 'p99'?"),
        ("ttft_mean=1s", f"--slo ttft_mean: {PERCENTILES} (got 'mean'); did you mean 'median'?"),
        ("ttft_p99=500", f"--slo ttft_p99: {UNITS} (got '500')"),
        ("ttft_p99=500msec", f"--slo ttft_p99: {UNITS} (got '500msec'); did you mean 'ms'?"),
        ("ttft_p99=-5ms", "--slo ttft_p99: must have a limit above 0 with its unit: 500ms (got '-5ms')"),
        ("ttft_p99", "--slo: must be metric_percentile=limit, as in ttft_p99=500ms (got 'ttft_p99')"),
        ("", "--slo: must be metric_percentile=limit,..., as in ttft_p99=500ms (got '')"),
        ("ttft_p99=1s,ttft_p99=2s", "--slo: limits this twice (got 'ttft_p99')"),
    ],
)
def test_what_means_nothing_is_one_line_with_the_nearest_choice(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_slo(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("attainment", [0, 1.1, -1])
def test_an_attainment_is_a_share(attainment: float) -> None:
    with pytest.raises(ScenarioError, match="--attainment: must be above 0 and at most 1"):
        parse_slo("ttft=1s", attainment)
