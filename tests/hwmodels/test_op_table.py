"""Rows of operations: what they need, and how they are priced on measured and on datasheet profiles."""

from __future__ import annotations

import pytest

from simllm.hwmodels.kernel_choice import KernelChoice
from simllm.hwmodels.op_columns import COLLECTIVES, NEEDED, OPTIONAL, ROOFLINE_OPS, RowError, parse_row
from simllm.hwmodels.op_model import FORM_OF_OP
from simllm.hwmodels.op_table import OpTable
from simllm.hwmodels.profile import load_profile

CALIBRATED = load_profile("h200-sxm")
DATASHEET = load_profile("datasheet:h200-sxm")
PRODUCT = {"op": "gemm", "dtype": "bf16", "m": "8192", "n": "8192", "k": "8192"}
CHUNK = {"op": "attention_prefill", "batch": "1", "query_len": "2048", "num_q_heads": "32"}
CHUNK |= {"num_kv_heads": "8", "head_dim": "128"}


def cells_of(op: str) -> dict[str, str]:
    sizes = {"num_experts": "64", "num_q_heads": "32", "head_dim": "128", "m": "64", "num_gpus": "4"}
    return {"op": op, **{name: sizes.get(name, "8") for name in NEEDED[op]}}


def test_every_op_that_a_profile_measures_can_be_asked_for():
    assert set(FORM_OF_OP) <= set(NEEDED)
    assert set(NEEDED) == {*FORM_OF_OP, *COLLECTIVES, *ROOFLINE_OPS}
    assert set(OPTIONAL) <= set(NEEDED)


@pytest.mark.parametrize("op", sorted(NEEDED))
@pytest.mark.parametrize("profile", [CALIBRATED, DATASHEET], ids=["calibrated", "datasheet"])
def test_every_op_has_a_price_on_every_profile(op, profile):
    for kernels in ("vllm", "triton"):
        priced = OpTable(profile, KernelChoice.parse(kernels)).price(parse_row(cells_of(op)))
        assert 1e-7 < priced.time_s < 1e-2
        assert priced.num_bytes > 0
        assert priced.bound
        assert priced.is_extrapolated or profile is CALIBRATED


def test_a_measured_product_is_priced_by_the_kernels_that_are_chosen():
    row = parse_row(PRODUCT)
    ours, theirs = (OpTable(CALIBRATED, KernelChoice.parse(name)).price(row) for name in ("triton", "vllm"))
    assert ours.time_s != theirs.time_s
    assert (theirs.flops, theirs.bound, theirs.is_extrapolated) == (2 * 8192**3, "power", False)


def test_the_engine_s_ratio_multiplies_the_measured_time():
    row = parse_row({**cells_of("attention_decode"), "context_len": "4096"})
    plain, slower = (
        OpTable(CALIBRATED, KernelChoice.parse("vllm", {"attention_decode": ratio})).price(row)
        for ratio in (1.0, 1.25)
    )
    assert slower.time_s == pytest.approx(1.25 * plain.time_s)


def test_a_dtype_that_was_not_measured_comes_from_the_roofline_and_says_so():
    priced = OpTable(CALIBRATED, KernelChoice.parse("vllm")).price(parse_row(PRODUCT | {"dtype": "tf32"}))
    assert priced.is_extrapolated
    # 1.0995e12 FLOPs at 494.7 TFLOP/s of tf32 and no more than that.
    assert priced.time_s > 2.2e-3


def test_a_collective_alone_on_its_gpu_takes_no_time():
    row = parse_row({"op": "all_reduce", "num_bytes": "1048576", "num_gpus": "1"})
    assert OpTable(CALIBRATED, KernelChoice.parse("vllm")).price(row).time_s == 0


def test_sizes_that_an_op_may_leave_out_have_their_usual_value():
    assert parse_row(CHUNK).point.context_len == 0
    assert parse_row(CHUNK | {"context_len": " 4096.0 "}).point.context_len == 4096
    assert parse_row(CHUNK).point.dtype == "bf16"
    assert parse_row(cells_of("attention_decode")).point.query_len == 1


@pytest.mark.parametrize(
    ("cells", "problems"),
    [
        ({"op": "gem"}, ["op 'gem' is unknown; did you mean 'gemm'?"]),
        (
            {"op": "gemm", "m": "1", "k": "0.5"},
            ["gemm needs n", "k must be a whole number of at least 1, got '0.5'"],
        ),
        (PRODUCT | {"dtype": "bf61"}, ["dtype 'bf61' is unknown; did you mean 'bf16'?"]),
        (CHUNK | {"num_kv_heads": "5"}, ["num_q_heads 32 is no multiple of num_kv_heads 5"]),
        (cells_of("grouped_gemm") | {"top_k": "65"}, ["top_k 65 is more than there are to choose from"]),
        (PRODUCT | {"m": "nan"}, ["m must be a whole number of at least 1, got 'nan'"]),
    ],
)
def test_everything_wrong_with_a_row_is_told_at_once(cells, problems):
    with pytest.raises(RowError) as error:
        parse_row(cells)
    assert list(error.value.problems) == problems
