"""What is measured of links: sizes, modes and implementations, a coarse look first."""

from __future__ import annotations

import pytest

from simllm.calibrate.links_plan import IMPLEMENTATIONS, make_link_plan, message_sizes
from simllm.errors import CalibrationError
from simllm.units import KIB, MIB

PLAN = make_link_plan((2, 4, 8))


def test_activations_sizes_are_three_times_as_dense():
    sizes = message_sizes(4 * KIB, 32 * MIB)
    assert sizes[:5] == [4 * KIB, 8 * KIB, 10 * KIB, 12 * KIB, 16 * KIB]
    assert sizes[-3:] == [20 * MIB, 24 * MIB, 32 * MIB]


def test_every_point_is_planned_once():
    assert len(set(PLAN)) == len(PLAN)


def test_every_implementation_and_every_number_of_gpus_is_measured():
    assert {point.implementation for point in PLAN} == set(IMPLEMENTATIONS)
    for num_gpus in (2, 4, 8):
        collectives = {p.collective for p in PLAN if p.num_gpus == num_gpus and p.implementation == "nccl"}
        assert collectives == {
            "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv"
        }  # fmt: skip


def test_a_coarse_look_comes_first():
    # Every fourth power of two in graphs, and the coarsest copies, before anything finer.
    first = PLAN[0]
    assert first.mode == "graph"
    assert first.num_bytes == KIB
    assert PLAN[-1].mode == "eager"


def test_rows_after_a_product_are_its_activations():
    rows = {(p.num_rows, p.num_bytes) for p in PLAN if p.mode == "after_gemm"}
    assert (64, 64 * 5120 * 2) in rows
    assert all(num_bytes % (2 * num_rows) == 0 for num_rows, num_bytes in rows)


def test_only_the_implementations_asked_for_are_planned():
    assert {point.implementation for point in make_link_plan((2,), ["nccl"])} == {"nccl"}


def test_a_misspelt_implementation_is_one_line_with_the_nearest():
    with pytest.raises(CalibrationError, match="'one_shoot' is unknown; did you mean 'one_shot'"):
        make_link_plan((2,), ["one_shoot"])
