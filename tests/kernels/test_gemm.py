"""Matrix products against float64: odd sizes, epilogues, 8-bit operands, splits, 4- and 8-bit weights."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import gemm, gemm_block_scaled, gemm_quantized, gemm_split_k, gemm_weight_only
from simllm.kernels.tuning import Config

from .tolerance import assert_close

SMALL = gemm.make_config(32, 32, 32, 4, 2, split_store=True)
SMALL_WHOLE = gemm.make_config(32, 16, 32, 4, 2, split_store=False)
SPLIT = Config({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 16, "SPLITS": 3})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("m", "n", "k"), [(70, 88, 72), (1, 8, 8), (33, 64, 128)])
def test_product_matches_float64_at_odd_sizes(m: int, n: int, k: int, dtype: torch.dtype) -> None:
    a, b = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
    assert_close(gemm.matmul(a, b, config=SMALL), gemm.matmul_oracle(a, b))


def test_bias_is_added_before_rounding() -> None:
    a, b, bias = (torch.randn(*shape, dtype=torch.float16) for shape in ((40, 64), (48, 64), (48,)))
    assert_close(gemm.matmul(a, b, bias=bias, config=SMALL), gemm.matmul_oracle(a, b, bias))


def test_silu_mul_pairs_each_gate_row_with_its_up_row() -> None:
    a, b = torch.randn(45, 64, dtype=torch.float16), torch.randn(2 * 40, 64, dtype=torch.float16)
    assert_close(gemm.matmul_silu_mul(a, b, config=SMALL_WHOLE), gemm.matmul_silu_mul_oracle(a, b))


def test_int8_product_with_row_and_column_scales_is_exact_up_to_the_output() -> None:
    a, b = (torch.randint(-127, 128, (rows, 96), dtype=torch.int8) for rows in (33, 48))
    a_scale, b_scale = torch.rand(33) * 0.01, torch.rand(48)
    out = gemm_quantized.scaled_matmul(a, b, a_scale, b_scale, out_dtype=torch.float16, config=SMALL_WHOLE)
    assert_close(out, gemm_quantized.scaled_matmul_oracle(a, b, a_scale, b_scale))


def test_one_scale_for_a_whole_tensor_is_a_scale_for_each_row() -> None:
    a, b = (torch.randint(-9, 10, (32, 32), dtype=torch.int8) for _ in range(2))
    one, each = torch.tensor([0.5]), torch.full((32,), 0.5)
    outs = [
        gemm_quantized.scaled_matmul(a, b, s, s, out_dtype=torch.float16, config=SMALL) for s in (one, each)
    ]
    assert torch.equal(outs[0], outs[1])


def test_splits_along_k_add_up_with_odd_sizes_and_bias() -> None:
    a, b, bias = (torch.randn(*shape, dtype=torch.float16) for shape in ((19, 77), (45, 77), (45,)))
    out = gemm_split_k.matmul_split_k(a, b, bias=bias, config=SPLIT)
    assert_close(out, gemm_split_k.matmul_oracle(a, b, bias))


@pytest.mark.parametrize("bits", [4, 8])
def test_weight_only_product_equals_the_product_with_dequantised_weights(bits: int) -> None:
    a, weight = torch.randn(19, 384, dtype=torch.float16), torch.randn(40, 384)
    encode = gemm_weight_only.quantize_int4 if bits == 4 else gemm_weight_only.quantize_int8
    parts = encode(weight)
    assert_close(
        gemm_weight_only.weight_only_matmul(a, *parts), gemm_weight_only.weight_only_oracle(a, *parts)
    )


@pytest.mark.parametrize(("bits", "half_step"), [(4, 0.5 / 15), (8, 0.5 / 127)])
def test_dequantised_weights_differ_by_half_a_step_at_most(bits: int, half_step: float) -> None:
    weight = torch.randn(8, 256)
    encode = gemm_weight_only.quantize_int4 if bits == 4 else gemm_weight_only.quantize_int8
    restored = gemm_weight_only.dequantize(*encode(weight))
    groups = weight.double().unflatten(1, (-1, 128))
    span = groups.amax(-1) - groups.amin(-1) if bits == 4 else groups.abs().amax(-1)
    error = (restored.unflatten(1, (-1, 128)) - groups).abs().amax(-1)
    # The 4-bit zero point is rounded too, which costs the end of the range another half step.
    assert (error <= span * half_step * (2 if bits == 4 else 1) * 1.001).all()


def test_misfitting_operands_are_refused_with_their_shapes() -> None:
    a, b = torch.randn(4, 16, dtype=torch.float16), torch.randn(8, 24, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"\(4, 16\) and \(8, 24\)"):
        gemm.matmul(a, b)


def test_rows_that_the_copy_engine_cannot_address_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        gemm.matmul(torch.randn(4, 9, dtype=torch.float16), torch.randn(8, 9, dtype=torch.float16))


def test_work_counts_two_flops_per_multiply_add() -> None:
    # 2 * 64 * 32 * 16 = 65,536 FLOPs; (64*16 + 32*16 + 64*32) * 2 bytes = 7,168.
    work = gemm.launch_work(64, 32, 16, torch.float16, SMALL)
    assert (work.flops, work.hbm_bytes) == (65_536, 7_168)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("m", "n", "k"), [(4096, 4096, 4096), (1000, 1544, 776), (17, 4096, 4096)])
def test_every_16_and_32_bit_type_on_the_gpu(gpu: str, m: int, n: int, k: int, dtype: torch.dtype) -> None:
    a, b, bias = (torch.randn(*shape, dtype=dtype, device=gpu) for shape in ((m, k), (n, k), (n,)))
    assert_close(gemm.matmul(a, b, bias=bias), gemm.matmul_oracle(a, b, bias))
    assert_close(gemm_split_k.matmul_split_k(a, b, bias=bias), gemm.matmul_oracle(a, b, bias))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_silu_mul_on_the_gpu(gpu: str, dtype: torch.dtype) -> None:
    a, b = (
        torch.randn(500, 2048, dtype=dtype, device=gpu),
        torch.randn(2 * 1032, 2048, dtype=dtype, device=gpu),
    )
    assert_close(gemm.matmul_silu_mul(a, b), gemm.matmul_silu_mul_oracle(a, b))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_8_bit_products_on_the_gpu(gpu: str, dtype: torch.dtype) -> None:
    a, b = ((torch.randn(rows, 4096, device=gpu) * 20).to(dtype) for rows in (1000, 1544))
    a_scale, b_scale = (torch.rand(rows, device=gpu) + 0.5 for rows in (1000, 1544))
    out = gemm_quantized.scaled_matmul(a, b, a_scale, b_scale)
    assert_close(out, gemm_quantized.scaled_matmul_oracle(a, b, a_scale, b_scale), 1e-2)


@pytest.mark.gpu
def test_block_scaled_fp8_on_the_gpu(gpu: str) -> None:
    a, b = (torch.randn(rows, 1024, device=gpu).to(torch.float8_e4m3fn) for rows in (1000, 1544))
    a_scale, b_scale = torch.rand(8, 1000, device=gpu).T + 0.5, torch.rand(13, 8, device=gpu) + 0.5
    out = gemm_block_scaled.block_scaled_matmul(a, b, a_scale, b_scale)
    assert_close(out, gemm_block_scaled.block_scaled_matmul_oracle(a, b, a_scale, b_scale), 1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [4, 8])
def test_weight_only_products_on_the_gpu(gpu: str, bits: int, dtype: torch.dtype) -> None:
    a, weight = torch.randn(33, 2048, dtype=dtype, device=gpu), torch.randn(1000, 2048, device=gpu)
    encode = gemm_weight_only.quantize_int4 if bits == 4 else gemm_weight_only.quantize_int8
    parts = encode(weight)
    assert_close(
        gemm_weight_only.weight_only_matmul(a, *parts), gemm_weight_only.weight_only_oracle(a, *parts)
    )
