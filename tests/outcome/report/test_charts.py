"""The charts: figures by hand, sums that equal the summary's, and each with its unit and definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("plotly")

from simllm.sim.outcome.report.bins import common_bins
from simllm.sim.outcome.report.document import report_charts
from simllm.sim.outcome.report.group_charts import group_charts
from simllm.sim.outcome.report.look import Chart
from simllm.sim.outcome.report.objective_charts import attainment
from simllm.sim.outcome.report.run_folder import Run, read_runs

from .conftest import Simulated

TIERED = (
    "pools.0.kv.num_gpu_blocks=200",
    "pools.0.kv.tiers=[{tier: dram, capacity_gib: 8}]",
    "pools.0.kv.tier_policy={kind: own, load_or_recompute: always_load}",
    "workload.shared_prefix={num_prefixes: 8, prefix_tokens: {kind: fixed, tokens: 512}}",
)


def chart(charts: list[Chart], key: str) -> Chart:
    (found,) = [chart for chart in charts if chart.key == key]
    return found


def trace(charts: list[Chart], key: str, name: str) -> Any:
    (found,) = [trace for trace in chart(charts, key).figure.data if trace.name == name]
    return found


def test_every_chart_has_a_name_of_its_own_a_unit_and_a_definition(hand: Run) -> None:
    charts = report_charts([hand])
    assert len({chart.key for chart in charts}) == len(charts) > 15
    for one in charts:
        assert one.definition.endswith("."), one.key
        assert any(axis.title.text for axis in (one.figure.layout.xaxis, one.figure.layout.yaxis)), one.key
        assert one.figure.data, one.key


def test_a_distribution_passes_through_the_summary_s_percentiles(hand: Run) -> None:
    charts = report_charts([hand])
    marks = trace(charts, "ttft-distribution", "hand: summary")
    assert list(marks.x) == [hand.summary[f"p{percent}_ttft_ms"] for percent in (50, 90, 95, 99)]
    # TTFT: 0.4, 0.3, 0.5 s
    assert list(trace(charts, "ttft-distribution", "hand").x) == pytest.approx([300, 400, 500])


def test_throughput_adds_up_to_the_summary_s_tokens(hand: Run) -> None:
    charts, width_s = report_charts([hand]), common_bins([hand]).width_s
    output = sum(trace(charts, "token-rate", "hand: output").y) * width_s
    finished = sum(trace(charts, "request-rate", "hand: finished").y) * width_s
    assert output == pytest.approx(hand.summary["total_output_tokens"])
    assert finished == pytest.approx(hand.summary["completed"])


def test_time_by_term_adds_up_to_the_time_with_a_step_running(hand: Run) -> None:
    charts, width_s = report_charts([hand]), common_bins([hand]).width_s
    over_time = chart(charts, "time-by-term-over-time").figure.data
    assert sum(np.sum(one.y) for one in over_time) * width_s == pytest.approx(1.82)
    whole = {one.name: one.x[0] for one in chart(charts, "time-by-term").figure.data}
    assert sum(whole.values()) == pytest.approx(1)
    assert whole["gemm"] == pytest.approx(hand.summary["term_share"]["gemm"])


def test_queue_and_running_are_means_over_time(hand: Run) -> None:
    charts, width_s = report_charts([hand]), common_bins([hand]).width_s
    # In the system: 0.8 + 0.3 + 1.02 request seconds.
    assert sum(trace(charts, "requests-in-system", "hand: in the system").y) * width_s == pytest.approx(2.12)


def test_attainment_counts_the_rejected_as_broken(hand: Run) -> None:
    # TTFT 0.4, 0.3, 0.5 s and one rejected; the limit is 0.45 s.
    assert attainment(hand) == {"ttft": 0.5, "all": 0.5}


def test_preemptions_add_up(hand: Run) -> None:
    hand.summary["num_preemptions"] = 1  # the hand-made steps have one
    assert sum(trace(report_charts([hand]), "preemptions", "hand").y) == 1


def test_without_step_rows_their_charts_are_left_out(unrecorded: Path) -> None:
    charts = report_charts(read_runs([unrecorded]))
    keys = {chart.key for chart in charts}
    assert "time-by-term" in keys
    assert not keys & {"batch-composition", "kv-by-tier", "running-waiting", "time-by-term-over-time"}


def test_a_run_in_which_nothing_finished_still_has_charts(hand: Run) -> None:
    hand.requests["status"] = "unfinished"
    for metric in ("ttft", "tpot", "e2el", "queue", "ttfo"):
        for percent in (50, 90, 95, 99):
            hand.summary[f"p{percent}_{metric}_ms"] = None
    assert len(report_charts([hand])) > 10


def test_runs_with_tiers_show_their_tiers_and_links(simulated: Simulated) -> None:
    runs = read_runs([simulated("tiered", *TIERED), simulated("plain")])
    charts = report_charts(runs)
    hits = trace(charts, "tier-tokens", "tiered")
    assert dict(zip(hits.x, hits.y, strict=True))["dram hit"] == runs[0].summary["kv_tiers"][0]["hit_tokens"]
    links = trace(charts, "links", "tiered")
    assert list(links.x) == [link["utilisation"] for link in runs[0].summary["links"]]
    assert {one.name for one in chart(charts, "kv-by-tier").figure.data} >= {"tiered: dram", "plain: hbm"}


def test_turns_and_tenants_are_shown_where_there_are_several(hand: Run) -> None:
    assert list(group_charts([hand])) == []
    hand.requests["turn"] = [0, 1, 0, 0]
    hand.requests["tenant"] = ["acme", "beta", "acme", "beta"]
    hand.__dict__.pop("completed", None)
    charts = {chart.key: chart.figure.data[0] for chart in group_charts([hand])}
    # Turn 0: TTFT 400 and 500 ms, turn 1: 300 ms.
    assert list(charts["ttft-by-turn"].y) == pytest.approx([450, 300])
    assert list(charts["ttft-by-tenant"].x) == ["acme", "beta"]
    # acme: 16 of 32 + 64 prompt tokens came from the cache
    assert list(charts["hits-by-tenant"].y) == pytest.approx([16 / 96, 0])


def test_tenants_go_by_name_and_the_last_stands_for_those_beyond(hand: Run) -> None:
    run = Run(
        "named",
        hand.summary | {"tenants": [{"tenant": "acme"}, {"tenant": "beta"}]},
        hand.requests,
        None,
        None,
    )
    run.requests["tenant"] = [0, 1, 7, 0]
    # beta: TTFT 300 and 500 ms
    (found,) = [chart for chart in group_charts([run]) if chart.key == "ttft-by-tenant"]
    assert dict(zip(found.figure.data[0].x, found.figure.data[0].y, strict=True)) == pytest.approx(
        {"acme": 400, "beta": 400}
    )


def test_the_fleet_s_size_is_drawn_to_the_end_of_the_run(hand: Run) -> None:
    sizes = {"pool": "main", "replicas": [[0.0, 1, 1], [0.5, 1, 2], [1.0, 2, 2]]}
    scaled = hand.summary | {"scaling": {"pools": [sizes]}}
    charts = report_charts([Run("scaled", scaled, hand.requests, hand.steps, hand.kv)])
    serving = trace(charts, "fleet", "scaled: main serving")
    assert list(serving.x) == [0.0, 0.5, 1.0, pytest.approx(2.02)]
    assert list(serving.y) == [1, 1, 2, 2]


def test_late_turns_share_a_bar(hand: Run) -> None:
    many = hand.completed.loc[hand.completed.index.repeat(10)].reset_index(drop=True)
    run = Run("many", hand.summary, many.assign(turn=range(30)), None, None)
    labels = list(next(group_charts([run])).figure.data[0].x)
    assert labels[-1] == "15+"
    assert len(labels) == 16
