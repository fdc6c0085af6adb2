"""Fits of links recover known coefficients, tell their error on sizes never seen, and repeat to the byte."""

from __future__ import annotations

import numpy as np
import pytest

from simllm.calibrate.links_fit import fit_links
from simllm.calibrate.links_plan import LinkPoint, message_sizes
from simllm.calibrate.links_samples import LinkSample
from simllm.hwmodels.link_profile import LinkModel, wire_factor
from simllm.units import KIB, MIB, US

LATENCY_S, EDGE_BYTES, SLOW, FAST = 6e-6, 64 * KIB, 20e9, 300e9
PEER_S = 1.5e-6


def true_s(point: LinkPoint) -> float:
    """6 us and 1.5 us a peer; what a GPU sends goes at 20 GB/s up to 64 KiB and at 300 GB/s beyond."""
    sent = wire_factor(point.collective, point.implementation, point.num_gpus) * point.num_bytes
    below, above = min(sent, EDGE_BYTES), max(sent - EDGE_BYTES, 0)
    return LATENCY_S + PEER_S * (point.num_gpus - 1) + below / SLOW + above / FAST


def samples(num_gpus: int = 2, *, noise: float = 0.0, collective: str = "all_reduce") -> list[LinkSample]:
    draw = np.random.default_rng(num_gpus)
    points = [LinkPoint(collective, "nccl", num_gpus, "graph", size) for size in message_sizes(KIB, 64 * MIB)]
    factors = np.exp(noise * draw.standard_normal(len(points)))
    return [
        LinkSample(point, time_us=true_s(point) / US * factor, num_runs=9)
        for point, factor in zip(points, factors, strict=True)
    ]


def test_known_regimes_come_back():
    # Two GPUs send their buffer once: the edge is at 64 KiB of it.
    entry = fit_links(samples())[0]
    assert entry.latency_s.value == pytest.approx(LATENCY_S + PEER_S, rel=1e-5)
    assert [regime.from_bytes for regime in entry.regimes] == [0, EDGE_BYTES]
    assert [regime.bytes_per_s.value for regime in entry.regimes] == pytest.approx([SLOW, FAST], rel=1e-5)
    assert entry.held_out.worst < 1e-5


def test_noise_shows_in_the_held_out_error_and_in_the_intervals():
    entry = fit_links(samples(noise=0.02))[0]
    assert 0.005 < entry.held_out.median < 0.03
    fast = entry.regimes[-1].bytes_per_s
    assert fast.low < FAST < fast.high
    assert fast.high / fast.low < 1.2


def test_regimes_that_are_not_there_are_not_found():
    # One bandwidth from the first byte on: 2 % noise is no reason for more regimes.
    flat = [
        LinkSample(sample.point, time_us=10 + sample.point.num_bytes / FAST / US * (1 + 0.01 * (-1) ** place))
        for place, sample in enumerate(samples())
    ]
    assert len(fit_links(flat)[0].regimes) == 1


def test_the_same_samples_in_any_order_give_the_same_entries():
    given = samples(noise=0.02) + samples(4, noise=0.02)
    assert fit_links(given) == fit_links(given[::-1])


def test_more_gpus_follow_from_fewer_by_what_each_sends():
    # From 2 GPUs alone: the bytes scale exactly; a peer adds 1.5 us, of which 1.2 us are assumed.
    entries = fit_links(samples(2) + samples(4))
    assert entries[0].held_out.fewer_gpus is None
    assert entries[1].held_out.fewer_gpus == pytest.approx(0, abs=0.08)


def test_eight_gpus_follow_from_two_and_four():
    model = LinkModel(fit_links(samples(2) + samples(4)))
    for sample in samples(8):
        predicted = model.predict("all_reduce", "nccl", num_bytes=sample.point.num_bytes, num_gpus=8)
        assert predicted.time_s == pytest.approx(true_s(sample.point), rel=0.1)
        assert predicted.is_extrapolated


def test_failed_and_unsteady_points_are_left_out():
    good = samples()
    point = good[5].point
    bad = [LinkSample(point, error="out of memory"), LinkSample(point, 1e6, spread=0.5, is_noisy=True)]
    assert fit_links(good + bad) == fit_links(good)


def test_too_few_sizes_give_no_entry():
    assert fit_links(samples()[:5]) == []
