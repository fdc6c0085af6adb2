"""The shipped links: their samples give the shipped fits again, within the error that they promise."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

import simllm
from simllm.calibrate.links_fit import fit_links
from simllm.calibrate.links_samples import read_link_samples
from simllm.hwmodels.link_profile import LinkModel, wire_factor
from simllm.hwmodels.profile import load_profile
from simllm.units import MIB, US

ROOT = Path(simllm.__file__).parent
SAMPLES = ROOT / "hwmodels" / "profiles" / "h200-sxm.links.samples.parquet"
NVLINK_BYTES_PER_S = 450e9  # one H200, one direction
MAX_MEDIAN_ERROR = 0.05


@pytest.fixture(scope="module")
def samples():
    return read_link_samples(SAMPLES)[0]


@pytest.fixture(scope="module")
def links():
    return load_profile("h200-sxm").links


def name_of(entry):
    return entry.collective, entry.implementation, entry.num_gpus, entry.mode


def test_refitting_the_samples_gives_the_shipped_links(samples, links):
    refitted = fit_links(samples)
    assert [name_of(entry) for entry in refitted] == [name_of(entry) for entry in links]
    # Another numpy may round the sixth digit differently.
    for again, shipped in zip(refitted, links, strict=True):
        assert again.latency_s.value == pytest.approx(shipped.latency_s.value, rel=1e-4)
        rates = [[regime.bytes_per_s.value for regime in entry.regimes] for entry in (again, shipped)]
        assert rates[0] == pytest.approx(rates[1], rel=1e-4)


def test_collectives_in_graphs_are_within_five_percent_on_sizes_left_out(links):
    medians = {
        (entry.collective, entry.implementation, entry.num_gpus): entry.held_out.median
        for entry in links
        if entry.mode == "graph"
    }
    assert len(medians) > 20
    assert {key: median for key, median in medians.items() if median > MAX_MEDIAN_ERROR} == {}


def test_no_link_is_faster_than_its_datasheet(samples):
    for sample in samples:
        point = sample.point
        if sample.is_usable and not point.is_copy and point.mode == "graph":
            sent = wire_factor(point.collective, point.implementation, point.num_gpus) * point.num_bytes
            assert sent / (sample.time_us * US) < NVLINK_BYTES_PER_S, point


def test_the_model_follows_every_measured_size(samples, links):
    model = LinkModel(links)
    graph = [s for s in samples if s.is_usable and not s.is_noisy and s.point.mode == "graph"]
    ratios = [
        model.predict(
            s.point.collective,
            s.point.implementation,
            num_bytes=s.point.num_bytes,
            num_gpus=s.point.num_gpus,
        ).time_s
        / (s.time_us * US)
        for s in graph
    ]
    assert np.median(np.abs(np.array(ratios) - 1)) < 0.03
    assert np.quantile(np.abs(np.array(ratios) - 1), 0.9) < 0.1


@pytest.mark.parametrize("implementation", ["nccl", "two_shot", "one_shot"])
def test_eight_gpus_follow_by_their_bytes_below_the_datasheet_and_say_so(links, implementation):
    size, model = 16 * MIB, LinkModel(links)
    four, eight = (
        model.predict("all_reduce", implementation, num_bytes=size, num_gpus=count) for count in (4, 8)
    )
    assert eight.time_s > four.time_s
    assert wire_factor("all_reduce", implementation, 8) * size / eight.time_s < NVLINK_BYTES_PER_S
    assert eight.is_extrapolated
    assert not four.is_extrapolated


def test_the_page_of_links_shows_the_shipped_figures():
    script = runpy.run_path(str(ROOT / "docs" / "generate_links.py"))
    text = script["PAGE"].read_text(encoding="utf-8")
    assert script["page"](text) == text, "run `python docs/generate_links.py`"
