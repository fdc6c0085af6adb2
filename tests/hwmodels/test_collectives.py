"""Alpha-beta times of collectives, against hand counts on a link of 1 us and 1 GB/s."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.errors import SimllmError
from simllm.hwmodels.collectives import (
    NVLINK_LATENCY_S,
    PCIE_LATENCY_S,
    Collectives,
    Link,
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    broadcast_s,
    one_shot_all_reduce_s,
    point_to_point_s,
    reduce_scatter_s,
    ring_all_reduce_bytes,
    ring_all_reduce_s,
    tensor_link,
    vllm_all_reduce,
)
from simllm.hwmodels.roofline import Efficiency
from simllm.units import KIB, MIB

from .handmade_links import coefficient, entry

LINK = Link(latency_s=1e-6, bytes_per_s=1e9)


def test_a_70b_token_over_8_ranks_moves_4_59_mb_per_gpu():
    # 80 layers x 2 all-reduces x 14/8 x 8,192 x 2 B
    moved = 80 * 2 * ring_all_reduce_bytes(8192 * 2, 8)
    assert moved == 4_587_520


def test_a_ring_takes_two_rounds_of_hops_and_nearly_twice_the_bytes():
    # 4 ranks: 6 hops of 1 us and 1.5 x 1 MB at 1 GB/s.
    assert ring_all_reduce_s(1e6, 4, LINK) == pytest.approx(6e-6 + 1.5e-3)


def test_one_shot_takes_one_hop_and_all_the_others_buffers():
    assert one_shot_all_reduce_s(1e6, 4, LINK) == pytest.approx(1e-6 + 3e-3)


def test_small_buffers_go_in_one_shot_and_large_ones_round_the_ring():
    # They meet where 5 us of hops pay for 1.5 x the bytes: 3,333 B.
    assert all_reduce_s(3000, 4, LINK) == one_shot_all_reduce_s(3000, 4, LINK)
    assert all_reduce_s(4000, 4, LINK) == ring_all_reduce_s(4000, 4, LINK)


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather():
    both = reduce_scatter_s(1e6, 4, LINK) + all_gather_s(1e6, 4, LINK)
    assert both == pytest.approx(ring_all_reduce_s(1e6, 4, LINK))


def test_all_to_all_keeps_a_rank_s_own_share_at_home():
    assert all_to_all_s(1e6, 4, LINK) == pytest.approx(1e-6 + 0.75e-3)


def test_a_message_takes_one_hop():
    assert point_to_point_s(1e6, LINK) == pytest.approx(1e-6 + 1e-3)


@pytest.mark.parametrize("collective", [all_reduce_s, all_gather_s, reduce_scatter_s, all_to_all_s])
def test_a_single_rank_communicates_nothing(collective):
    assert collective(1e6, 1, LINK) == 0.0


@given(size=st.floats(0, 1e9), more=st.floats(0, 1e8), ranks=st.sampled_from([2, 4, 8]))
def test_more_bytes_never_take_less_time(size, more, ranks):
    assert all_reduce_s(size + more, ranks, LINK) >= all_reduce_s(size, ranks, LINK)


def test_ranks_talk_over_nvlink_where_there_is_one_and_else_over_pcie(toy_device):
    efficiency = Efficiency(link=0.5)
    assert tensor_link(toy_device, efficiency) == Link(NVLINK_LATENCY_S, 2e11)
    without = replace(toy_device, nvlink_bytes_per_s_per_direction=None)
    assert tensor_link(without, efficiency) == Link(PCIE_LATENCY_S, 2.5e10)


def test_a_device_without_links_cannot_be_one_of_several(toy_device):
    alone = replace(toy_device, nvlink_bytes_per_s_per_direction=None, pcie_bytes_per_s_per_direction=None)
    with pytest.raises(SimllmError, match="no NVLink and no PCIe"):
        tensor_link(alone, Efficiency())


@pytest.mark.parametrize(
    ("num_bytes", "num_gpus", "implementation"),
    [
        (8 * MIB - 16, 2, "one_shot"),  # two GPUs never take two stages
        (8 * MIB, 2, "nccl"),
        (512 * KIB - 16, 4, "one_shot"),
        (512 * KIB, 4, "two_shot"),
        (256 * KIB, 8, "two_shot"),
        (8 * MIB, 4, "nccl"),
        (16 * KIB, 3, "nccl"),  # no kernel of vLLM's for 3 GPUs
    ],
)
def test_vllm_reduces_small_messages_by_its_own_kernels(num_bytes, num_gpus, implementation):
    assert vllm_all_reduce(num_bytes, num_gpus) == implementation


def test_a_measured_collective_wins_over_the_datasheet(toy_device):
    # one_shot of 5,000 B: 5 us + 1,000 B at 1 GB/s + 4,000 B at 4 GB/s = 7 us.
    collectives = Collectives([entry(2, "one_shot")], toy_device, Efficiency())
    assert collectives.all_reduce_s(5000, 2) == pytest.approx(7e-6)
    link = tensor_link(toy_device, Efficiency())
    assert collectives.all_gather_s(5000, 2) == all_gather_s(5000, 2, link)


@pytest.mark.parametrize("links", [None, ()])
def test_without_measured_links_the_datasheet_answers(toy_device, links):
    collectives, link = Collectives(links, toy_device, Efficiency()), tensor_link(toy_device, Efficiency())
    assert collectives.all_reduce_s(1e6, 4) == all_reduce_s(1e6, 4, link)
    assert collectives.reduce_scatter_s(1e6, 4) == reduce_scatter_s(1e6, 4, link)
    assert collectives.all_to_all_s(1e6, 4) == all_to_all_s(1e6, 4, link)
    assert collectives.broadcast_s(1e6, 4) == broadcast_s(1e6, 4, link)
    assert collectives.send_recv_s(1e6) == point_to_point_s(1e6, link)
    assert not collectives.is_extrapolated("all_reduce", 1e6, 4)


def test_one_gpu_communicates_nothing_even_without_links(toy_device):
    alone = replace(toy_device, nvlink_bytes_per_s_per_direction=None, pcie_bytes_per_s_per_direction=None)
    assert Collectives(None, alone, Efficiency()).all_reduce_s(1e6, 1) == 0.0


def test_what_was_not_measured_is_told(toy_device):
    links = [entry(2, "one_shot", latency_s=coefficient(5e-6))]
    collectives = Collectives(links, toy_device, Efficiency())
    assert not collectives.is_extrapolated("all_reduce", 5000, 2)
    assert collectives.is_extrapolated("all_reduce", 5000, 4)


def test_a_broadcast_hands_the_buffer_on():
    # 4 ranks: 3 hops of 1 us, and 1 MB at 1 GB/s that flows through all of them.
    assert broadcast_s(1e6, 4, LINK) == pytest.approx(3e-6 + 1e-3)
