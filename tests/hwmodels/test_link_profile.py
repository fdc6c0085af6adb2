"""The links of a profile: piecewise times, and what follows for numbers of GPUs that nobody measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simllm.hwmodels.link_profile import PEER_S, LinkModel, wire_factor

from .handmade_links import coefficient, entry


def seconds(model: LinkModel, num_bytes: float, num_gpus: int = 2, implementation: str = "nccl") -> float:
    return model.predict("all_reduce", implementation, num_bytes=num_bytes, num_gpus=num_gpus).time_s


def test_each_regime_adds_its_own_bytes():
    # 5 us + 500 B at 1 GB/s; 5 us + 1,000 B at 1 GB/s + 4,000 B at 4 GB/s.
    model = LinkModel([entry()])
    assert seconds(model, 500) == pytest.approx(5.5e-6)
    assert seconds(model, 5000) == pytest.approx(7e-6)


@given(size=st.floats(0, 1e9), more=st.floats(0, 1e6), gpus=st.sampled_from([2, 3, 4, 8]))
def test_more_bytes_never_take_less_time(size, more, gpus):
    model = LinkModel([entry(2), entry(4)])
    assert seconds(model, size + more, gpus) >= seconds(model, size, gpus)


def test_the_curve_has_no_step_at_an_edge():
    model = LinkModel([entry()])
    assert seconds(model, 1000 - 1e-6) == pytest.approx(seconds(model, 1000), rel=1e-9)


@pytest.mark.parametrize(("size", "is_beyond"), [(99, True), (100, False), (1e6, False), (1.1e6, True)])
def test_a_size_outside_the_measured_range_is_extrapolated(size, is_beyond):
    predicted = LinkModel([entry()]).predict("all_reduce", "nccl", num_bytes=size, num_gpus=2)
    assert predicted.is_extrapolated is is_beyond


def test_a_number_of_gpus_that_was_not_measured_sends_its_own_share():
    # Ring over 8 of which 4 was measured: 7/4 instead of 3/2 of the buffer, 6,000 B as 7,000 B,
    # and 4 peers more at 1.2 us each.
    model = LinkModel([entry(4)])
    predicted = model.predict("all_reduce", "nccl", num_bytes=6000, num_gpus=8)
    assert predicted.time_s == pytest.approx(5e-6 + 1e-6 + 6000 / 4e9 + 4 * PEER_S)
    assert predicted.is_extrapolated


def test_two_measured_counts_say_what_a_peer_adds_to_the_first_byte():
    # 5 us with 2 GPUs, 9 us with 4: 2 us a peer, 17 us with 8.
    model = LinkModel([entry(2), entry(4, latency_s=coefficient(9e-6))])
    assert seconds(model, 0, num_gpus=8) == pytest.approx(17e-6)


def test_one_shot_reads_every_other_buffer_and_two_shot_twice_the_others_shares():
    assert wire_factor("all_reduce", "one_shot", 4) == 3
    assert wire_factor("all_reduce", "torch_two_shot", 4) == wire_factor("all_reduce", "nccl", 4) == 1.5
    assert wire_factor("all_gather", "nccl", 4) == 0.75
    assert wire_factor("broadcast", "nccl", 4) == 1


def test_a_model_tells_what_it_holds():
    model = LinkModel([entry()])
    assert model.has("all_reduce", "nccl")
    assert not model.has("all_reduce", "nccl", "eager")
    assert not model.has("broadcast", "nccl")


@pytest.mark.parametrize("edges", [(10, 20), (0, 0), (0, -5)])
def test_regimes_that_do_not_rise_from_zero_are_refused(edges):
    regimes = [{"from_bytes": edge, "bytes_per_s": coefficient(1e9)} for edge in edges]
    with pytest.raises(ValidationError):
        entry(regimes=regimes)
