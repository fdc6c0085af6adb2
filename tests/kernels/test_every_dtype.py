"""What the files of single families leave out: every family runs on the GPU in every dtype that it takes."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import (
    attention_fa1,
    attention_naive,
    attention_prefill,
    elementwise,
    gemm,
    gemm_quantized,
    gemm_split_k,
    moe,
    norm,
    probes,
    quantize,
    sampling,
    softmax,
    softmax_steps,
)

from .tolerance import assert_close, relative_error

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
# e4m3 has 3 bits of mantissa: at most 2^-4 of a number, 2.6 % in the norm; int8 of normal rows 0.7 %.
QUANTISED_RELATIVE_ERROR = 0.03


def test_outputs_are_poisoned_before_a_kernel_writes_them() -> None:
    assert torch.empty(3).isnan().all()
    assert torch.empty_like(torch.zeros(3)).isnan().all()
    assert torch.zeros(1).new_empty(3, dtype=torch.float8_e4m3fn).float().isnan().all()
    assert (torch.empty(3, dtype=torch.int8) == 127).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(65, 1000, 4096), (97, 4096, 1032), (128, 520, 776), (160, 4096, 4096)]
)
def test_products_of_65_to_160_rows(gpu: str, m: int, n: int, k: int, dtype: torch.dtype) -> None:
    a, b, bias = (torch.randn(*shape, dtype=dtype, device=gpu) for shape in ((m, k), (n, k), (n,)))
    oracle = gemm.matmul_oracle(a, b, bias)
    assert_close(gemm.matmul(a, b, bias=bias), oracle)
    assert_close(gemm_split_k.matmul_split_k(a, b, bias=bias), oracle)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("out_dtype", [torch.bfloat16, torch.float16])
def test_8_bit_products_into_either_16_bit_type(gpu: str, out_dtype: torch.dtype, dtype: torch.dtype) -> None:
    a, b = ((torch.randn(rows, 512, device=gpu) * 20).to(dtype) for rows in (100, 264))
    scales = [torch.rand(rows, device=gpu) * 0.01 for rows in (100, 264)]
    out = gemm_quantized.scaled_matmul(a, b, *scales, out_dtype=out_dtype)
    assert_close(out, gemm_quantized.scaled_matmul_oracle(a, b, *scales), 1e-2)


@pytest.mark.gpu
def test_attention_of_32_bit_heads_runs_as_tf32(gpu: str) -> None:
    q, k, v = (torch.randn(300, heads, 64, device=gpu) for heads in (4, 2, 2))
    oracle = attention_naive.naive_attention_oracle(q, k, v)
    # Scores and probabilities pass tf32 one after the other.
    assert_close(attention_naive.naive_attention(q, k, v), oracle, 2e-3)
    assert_close(attention_fa1.fa1_attention(q, k, v), oracle, 2e-3)
    chunks = attention_prefill.Chunks.of([300], [300], gpu)
    assert_close(attention_prefill.prefill_attention(q, k, v, chunks), oracle, 2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_routing_and_combining(gpu: str, dtype: torch.dtype) -> None:
    logits = torch.randn(333, 60, device=gpu).to(dtype)
    weights, experts = moe.route(logits, 6)
    expected, _ = moe.route_oracle(logits, 6, is_renormalized=True)
    assert_close(weights, expected, 1e-5)
    # 16-bit logits tie, so the experts are compared by their logits.
    assert torch.equal(logits.gather(1, experts.long()), logits.sort(-1, descending=True).values[:, :6])
    y = torch.randn(333 * 6, 1000, dtype=dtype, device=gpu)
    combined = (y.double().view(333, 6, -1) * weights.double()[..., None]).sum(1)
    assert_close(moe.combine(y, weights), combined)


@pytest.mark.gpu
@pytest.mark.parametrize("block_m", [16, 128])
def test_the_plan_on_the_gpu_is_a_stable_sort(gpu: str, block_m: int) -> None:
    experts = torch.randint(0, 60, (1000, 8), dtype=torch.int32, device=gpu)
    experts[:, 3] = 7  # one expert far more popular than the others, and some with no row
    experts[experts == 30] = 31
    plan = moe.plan_tiles(experts, 60, block_m)
    rows = plan.rows[plan.rows < 8000]
    assert torch.equal(rows.long(), experts.flatten().argsort(stable=True))
    tiles = -(-torch.bincount(experts.flatten(), minlength=60) // block_m)
    assert int(plan.num_tiles) == int(tiles.sum())
    used = plan.tile_experts[: int(tiles.sum())].long()
    assert torch.equal(used, torch.arange(60, device=gpu).repeat_interleave(tiles))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary_positions(gpu: str, dtype: torch.dtype) -> None:
    q, k = (torch.randn(77, heads, 128, dtype=dtype, device=gpu) for heads in (28, 4))
    positions = torch.randint(0, 4096, (77,), device=gpu)
    table = elementwise.rope_table(4096, 128).to(gpu)
    expected = [elementwise.rope_oracle(x, positions, table) for x in (q, k)]
    elementwise.rope_(q, k, positions, table)
    assert_close(q, expected[0])
    assert_close(k, expected[1])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("code_dtype", [torch.float8_e4m3fn, torch.int8])
def test_quantisation_of_every_input(gpu: str, code_dtype: torch.dtype, dtype: torch.dtype) -> None:
    x, weight = (torch.randn(*shape, dtype=dtype, device=gpu) for shape in ((123, 5120), (5120,)))
    codes, scales = quantize.quantize_per_token(x, code_dtype)
    assert relative_error(codes.double() * scales[:, None], x) < QUANTISED_RELATIVE_ERROR
    codes, scales = quantize.quantize_per_group(x, code_dtype)
    assert relative_error(codes.double() * scales.repeat_interleave(128, 1), x) < QUANTISED_RELATIVE_ERROR
    codes, scales, _ = norm.rms_norm_fp8(x, weight)
    oracle = norm.norm_oracle(x, weight)
    assert relative_error(codes.double() * scales[:, None], oracle) < QUANTISED_RELATIVE_ERROR


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_columns", [77, 4096, 40_000])
def test_softmax_in_steps(gpu: str, num_columns: int, dtype: torch.dtype) -> None:
    # In steps the exponentials are rounded too: two roundings where one launch has one.
    x = torch.randn(50, num_columns, dtype=dtype, device=gpu) * 3
    oracle = softmax.softmax_oracle(x)
    assert_close(softmax.softmax(x), oracle)
    assert_close(softmax_steps.softmax_in_steps(x), oracle, 1.6e-2 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_sampling_from_every_type_of_logits(gpu: str, dtype: torch.dtype) -> None:
    logits = (torch.randn(40, 32_000, device=gpu) * 3).to(dtype)
    settings = torch.full((40,), 0.8), torch.full((40,), 20, dtype=torch.int32), torch.full((40,), 0.9)
    tokens = sampling.sample(logits, *(values.to(gpu) for values in settings), seed=7)
    kept = sampling.kept_tokens_oracle(logits, *settings)
    # 16-bit logits tie with the last one kept, and then all that tie are.
    lowest = logits.cpu().double().masked_fill(~kept, float("inf")).amin(1)
    assert (logits.cpu().double()[torch.arange(40), tokens.long().cpu()] >= lowest).all()


@pytest.mark.gpu
def test_probes_move_every_word(gpu: str) -> None:
    source = torch.randint(0, 1000, (8 * probes.BLOCK,), dtype=torch.int32, device=gpu)
    assert torch.equal(probes.copy(source, torch.empty_like(source)), source)
    assert (probes.write(torch.empty_like(source), 7) == 7).all()
    assert int(probes.read(source, passes=2).sum()) == 2 * int(source.sum())
