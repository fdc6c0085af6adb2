"""Norms, softmax, transpose, SiLU-mul, RoPE, quantisation and sampling against float64."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import elementwise, norm, probes, quantize, sampling, softmax, softmax_steps, transpose
from simllm.kernels.tuning import Config

from .tolerance import assert_close, relative_error


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("has_residual", [True, False])
def test_rms_norm_returns_the_norm_and_the_new_residual(has_residual: bool, dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 100, dtype=dtype), torch.randn(100, dtype=dtype)
    residual = torch.randn(5, 100, dtype=dtype) if has_residual else None
    out, total = norm.rms_norm(x, weight, residual=residual)
    assert_close(out, norm.norm_oracle(x, weight, residual=residual))
    assert torch.equal(total, x if residual is None else x + residual)


def test_layer_norm_subtracts_the_mean_of_the_row_alone() -> None:
    # A large mean shows whether padding columns leak into the variance.
    x = torch.randn(5, 100, dtype=torch.float16) + 30
    weight, bias = torch.randn(100, dtype=torch.float16), torch.randn(100, dtype=torch.float16)
    out, _ = norm.layer_norm(x, weight, bias)
    assert_close(out, norm.norm_oracle(x, weight, bias, epsilon=1e-5))


def test_softmax_of_an_odd_row_sums_to_one() -> None:
    x = torch.randn(7, 77) * 5
    out = softmax.softmax(x)
    assert_close(out, softmax.softmax_oracle(x))
    torch.testing.assert_close(out.sum(-1), torch.ones(7))


def test_softmax_in_four_steps_is_softmax() -> None:
    x = torch.randn(7, 77) * 5
    assert_close(softmax_steps.softmax_in_steps(x), softmax.softmax_oracle(x))
    # Four reads and two writes of 2 x 8 fp32 numbers, where one launch reads and writes them once.
    assert softmax_steps.launch_work(2, 8, torch.float32).hbm_bytes == 6 * 2 * 8 * 4
    assert softmax.launch_work(2, 8, torch.float32).hbm_bytes == 2 * 2 * 8 * 4


def test_transpose_moves_every_element_of_odd_shapes() -> None:
    x = torch.arange(35 * 67, dtype=torch.float32).view(35, 67)
    tile = Config({"BLOCK_M": 16, "BLOCK_N": 32})
    assert torch.equal(transpose.transpose(x, config=tile), transpose.transpose_oracle(x))


def test_silu_mul_matches_float64() -> None:
    gate_up = torch.randn(6, 2 * 75, dtype=torch.float16)
    assert_close(elementwise.silu_mul(gate_up), elementwise.silu_mul_oracle(gate_up))


def test_rope_rotates_queries_and_keys_by_their_positions() -> None:
    q, k = torch.randn(5, 3, 16), torch.randn(5, 1, 16)
    positions, table = torch.tensor([0, 7, 3, 99, 7]), elementwise.rope_table(100, 16)
    expected = [elementwise.rope_oracle(x, positions, table) for x in (q, k)]
    elementwise.rope_(q, k, positions, table)
    assert_close(q, expected[0])
    assert_close(k, expected[1])


@pytest.mark.parametrize("group", [384, 128])
def test_int8_codes_lie_within_half_a_step(group: int) -> None:
    x = torch.randn(19, 384, dtype=torch.float16)
    encode = quantize.quantize_per_token if group == 384 else quantize.quantize_per_group
    codes, scales = encode(x, torch.int8)
    exact, exact_scales = quantize.quantize_oracle(x, torch.int8, group)
    assert_close(scales.reshape(exact_scales.shape), exact_scales)
    steps = scales.double().reshape(19, -1).repeat_interleave(group, 1)
    assert ((codes.double() * steps - exact).abs() <= 0.5001 * steps).all()


def test_only_tokens_that_top_k_and_top_p_keep_are_drawn() -> None:
    logits = (torch.randn(1, 50) * 2).repeat(24, 1)
    settings = torch.ones(24), torch.full((24,), 5, dtype=torch.int32), torch.full((24,), 0.8)
    tokens = sampling.sample(logits, *settings, seed=3)
    kept = sampling.kept_tokens_oracle(logits, *settings)
    assert kept[torch.arange(24), tokens.long()].all()
    assert set(tokens.tolist()) == set(kept[0].nonzero().flatten().tolist())


def test_temperature_zero_takes_the_largest_logit() -> None:
    logits = torch.randn(4, 77)
    tokens = sampling.sample(logits, torch.zeros(4), torch.zeros(4, dtype=torch.int32), torch.ones(4), seed=0)
    assert tokens.tolist() == logits.argmax(-1).tolist()


def test_probes_move_the_bytes_that_they_count() -> None:
    source = torch.randint(0, 1000, (4 * probes.BLOCK,), dtype=torch.int32)
    assert torch.equal(probes.copy(source, torch.empty_like(source)), source)
    assert (probes.write(torch.empty_like(source), 7) == 7).all()
    assert int(probes.read(source, passes=2).sum()) == 2 * int(source.sum())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("hidden", [4096, 5120, 16384])
def test_rows_on_the_gpu(gpu: str, hidden: int, dtype: torch.dtype) -> None:
    x, residual = (torch.randn(300, hidden, dtype=dtype, device=gpu) for _ in range(2))
    weight, bias = (torch.randn(hidden, dtype=dtype, device=gpu) for _ in range(2))
    assert_close(
        norm.rms_norm(x, weight, residual=residual)[0], norm.norm_oracle(x, weight, residual=residual)
    )
    assert_close(norm.layer_norm(x, weight, bias)[0], norm.norm_oracle(x, weight, bias, epsilon=1e-5))
    assert_close(softmax.softmax(x), softmax.softmax_oracle(x))
    assert_close(elementwise.silu_mul(x), elementwise.silu_mul_oracle(x))
    assert torch.equal(transpose.transpose(x), x.T)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_quantisation_on_the_gpu(gpu: str, dtype: torch.dtype) -> None:
    # e4m3 has 3 bits of mantissa: a uniform error of up to 2^-4, 2.6 % in the norm; int8 of normal rows 0.7
    # %.
    x = torch.randn(300, 4096, dtype=torch.bfloat16, device=gpu)
    codes, scales = quantize.quantize_per_token(x, dtype)
    assert relative_error(codes.double() * scales[:, None], x) < 0.03
    codes, scales = quantize.quantize_per_group(x, dtype)
    assert relative_error(codes.double() * scales.repeat_interleave(128, 1), x) < 0.03


@pytest.mark.gpu
def test_the_norm_fused_with_quantisation_equals_the_two_in_turn(gpu: str) -> None:
    x, weight = (torch.randn(*shape, dtype=torch.bfloat16, device=gpu) for shape in ((300, 4096), (4096,)))
    codes, scales, _ = norm.rms_norm_fp8(x, weight)
    assert relative_error(codes.double() * scales[:, None], norm.norm_oracle(x, weight)) < 0.03


@pytest.mark.gpu
def test_draws_on_the_gpu_follow_the_softmax(gpu: str) -> None:
    # 20,000 draws of 40 tokens: the standard error of a frequency is at most sqrt(0.25 / 20,000) = 0.0035; 5
    # of them.
    logits = torch.randn(1, 40, device=gpu).repeat(20_000, 1)
    ones = torch.ones(20_000, device=gpu)
    tokens = sampling.sample(logits, ones, torch.zeros_like(ones, dtype=torch.int32), ones, seed=1)
    frequencies = torch.bincount(tokens, minlength=40) / 20_000
    assert (frequencies - logits[0].softmax(-1)).abs().max() < 0.018


@pytest.mark.gpu
def test_top_k_and_top_p_on_the_gpu_keep_what_sorting_keeps(gpu: str) -> None:
    logits = torch.randn(64, 128_256, device=gpu) * 3
    settings = torch.full((64,), 0.8), torch.full((64,), 50, dtype=torch.int32), torch.full((64,), 0.9)
    tokens = sampling.sample(logits, *(values.to(gpu) for values in settings), seed=5)
    kept = sampling.kept_tokens_oracle(logits, *settings)
    assert kept[torch.arange(64), tokens.long().cpu()].all()
