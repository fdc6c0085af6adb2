"""The roofline on a device of round numbers: which resource binds, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.errors import ProfileError, SimllmError
from simllm.hwmodels import ops
from simllm.hwmodels.device import load_device
from simllm.hwmodels.ops import Launches, Op
from simllm.hwmodels.roofline import DEFAULT_EFFICIENCY_SOURCES, Efficiency, Roofline


@pytest.fixture
def toy(toy_device, whole_rates) -> Roofline:
    return Roofline(toy_device, whole_rates)


@pytest.mark.parametrize(
    "op, seconds, bound",
    [
        (Op("x", flops=1e12, hbm_bytes=1e8, dtype="bf16"), 1e-3, "matrix"),
        (Op("x", flops=1e12, hbm_bytes=1e10, dtype="bf16"), 1e-2, "hbm"),
        (Op("x", flops=1e12, hbm_bytes=0, dtype="bf16", l2_bytes=1e11), 1e-2, "l2"),
        (Op("x", flops=1e12, hbm_bytes=0, dtype="bf16", sram_bytes=1e12), 1e-2, "sram"),
        (Op("x", flops=1e12, hbm_bytes=0, dtype="bf16", vector_flops=1e12), 1e-2, "vector"),
        (Op("x", flops=1e12, hbm_bytes=0, dtype="fp32", unit="vector"), 1e-2, "vector"),
    ],
)
def test_the_busiest_resource_binds(toy, op, seconds, bound):
    timing = toy.time(op)
    assert timing.busy_s == pytest.approx(seconds)
    assert timing.bound == bound


def test_the_last_wave_costs_as_much_as_a_full_one(toy):
    # 100 SMs: 100 tiles are one wave of 1e15 / 100 FLOP/s each, 101 tiles are two.
    one = toy.time(Op("x", flops=1e12, hbm_bytes=0, dtype="bf16", num_tiles=100))
    two = toy.time(Op("x", flops=1.01e12, hbm_bytes=0, dtype="bf16", num_tiles=101))
    assert one.busy_s == pytest.approx(1e-3)
    assert two.busy_s == pytest.approx(2e-3)


def test_fewer_tiles_than_sms_leave_sms_idle(toy):
    assert toy.time(Op("x", flops=1e12, hbm_bytes=0, dtype="bf16", num_tiles=1)).busy_s == pytest.approx(0.1)


def test_padded_tiles_cost_time(toy):
    op = Op("x", flops=1e12, issued_flops=3e12, hbm_bytes=0, dtype="bf16")
    assert toy.time(op).busy_s == pytest.approx(3e-3)


def test_efficiencies_slow_their_own_resource(toy_device):
    slow = Roofline(toy_device, Efficiency(matrix=0.5, attention_matrix=0.25, hbm=0.5, kv_hbm=0.25))
    assert slow.time(Op("gemm", 1e12, 0, "bf16")).busy_s == pytest.approx(2e-3)
    assert slow.time(Op("prefill_attention", 1e12, 0, "bf16")).busy_s == pytest.approx(4e-3)
    assert slow.time(Op("gemm", 0, 1e9, "bf16")).busy_s == pytest.approx(2e-3)
    assert slow.time(Op("decode_attention", 0, 1e9, "bf16")).busy_s == pytest.approx(4e-3)


def test_the_fastest_alternative_is_taken(toy):
    slow, fast = Op("x", 2e12, 0, "bf16"), Op("x", 1e12, 0, "bf16")
    assert toy.fastest((slow, fast)) == toy.time(fast)


def test_a_sequence_adds_up_and_is_bound_by_what_binds_most_of_it(toy):
    compute = Launches(3, (Op("x", 1e12, 0, "bf16"),))
    memory = Launches(1, (Op("x", 0, 2e9, "bf16", num_kernels=2),))
    timing = toy.total([compute, memory])
    assert timing.busy_s == pytest.approx(3e-3 + 2e-3)
    assert (timing.bound, timing.num_kernels) == ("matrix", 5)


def test_nothing_to_launch_takes_no_time(toy):
    assert toy.total([]) == (0.0, "none", 0, 0.0, 0.0, False)


def test_a_dtype_without_units_is_an_error_that_names_those_there_are(toy):
    with pytest.raises(SimllmError, match=r"toy has no matrix rate for 'int4', only \['bf16', 'fp8'\]"):
        toy.time(Op("x", 1e12, 0, "int4"))


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, float("nan")])
def test_an_efficiency_outside_0_to_1_is_refused(value):
    with pytest.raises(ProfileError, match="'hbm' must be in"):
        Efficiency(hbm=value)


def test_every_default_efficiency_says_where_it_comes_from():
    assert set(DEFAULT_EFFICIENCY_SOURCES) == set(Efficiency.__dataclass_fields__)


def test_a_decode_gemm_of_one_token_is_bound_by_its_weights(toy):
    timing = toy.fastest(ops.gemm_candidates(1, 4096, 4096, "bf16"))
    assert timing.bound == "hbm"
    assert timing.busy_s == pytest.approx(4096 * 4096 * 2 / 1e12, rel=1e-3)


def test_the_knee_of_h100_is_near_295_tokens_at_the_datasheet_s_rates(whole_rates):
    # T* = peak * b / (2 * BW) = 989e12 * 2 / (2 * 3.35e12) = 295: a square GEMM of many whole tiles.
    device = replace(load_device("h100-sxm"), l2_bytes_per_s=1e15, sram_bytes_per_s=1e16)
    roofline = Roofline(device, whole_rates)
    at = {
        m: roofline.time(replace(ops.gemm(m, 16384, 16384, "bf16"), num_tiles=None)).bound for m in (256, 384)
    }
    assert at == {256: "hbm", 384: "matrix"}


@settings(max_examples=60)
@given(m=st.integers(1, 3000), more=st.integers(1, 300), n=st.sampled_from([512, 4096, 28672]))
def test_more_rows_never_make_a_gemm_cheaper(m, more, n):
    roofline = Roofline(load_device("h200-sxm"), Efficiency())
    few = roofline.fastest(ops.gemm_candidates(m, n, 4096, "bf16"))
    many = roofline.fastest(ops.gemm_candidates(m + more, n, 4096, "bf16"))
    assert many.busy_s >= few.busy_s * (1 - 1e-12)


@settings(max_examples=60)
@given(tokens=st.integers(1, 3000), more=st.integers(1, 300))
def test_more_tokens_never_make_the_experts_cheaper(tokens, more):
    roofline = Roofline(load_device("h200-sxm"), Efficiency())
    few, many = (
        roofline.fastest(ops.grouped_gemm_candidates(count, 1536, 2048, "bf16", num_experts=128, top_k=8))
        for count in (tokens, tokens + more)
    )
    assert many.busy_s >= few.busy_s * (1 - 1e-12)
