"""Attention with int8 scores: against its own rounding in float64, and against attention of the inputs."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import attention_prefill_int8, quantize_keys
from simllm.kernels.attention_prefill import Chunks
from simllm.kernels.tuning import Config

from .tolerance import INT8_SCORES_RELATIVE_ERROR, ROUNDED_RELATIVE_ERROR, assert_close, relative_error

SMALL = Config({"BLOCK_M": 16, "BLOCK_N": 32, "USE_TMA": True})


def random_heads(*shape: int, dtype: torch.dtype = torch.float16, device: str = "cpu") -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, device=device)


def random_pages(
    rows: torch.Tensor, kv_lens: list[int], block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (cache, block table): the rows of each request in pages of a random order."""
    width = -(-max(kv_lens) // block_size)
    table = torch.randperm(len(kv_lens) * width).int().view(len(kv_lens), -1)
    cache = torch.randn(len(kv_lens) * width, block_size, *rows.shape[1:]).to(rows)
    for request, part in enumerate(rows.split(kv_lens)):
        for block, page in enumerate(part.split(block_size)):
            cache[int(table[request, block]), : len(page)] = page
    return cache, table.to(rows.device)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_ragged_chunks_with_int8_scores_differ_by_their_rounding_alone(
    kv_heads: int, is_causal: bool
) -> None:
    q, k, v = random_heads(42, 4, 32), random_heads(90, kv_heads, 32), random_heads(90, kv_heads, 32)
    chunks = Chunks.of([37, 5], [50, 40], "cpu")
    out = attention_prefill_int8.prefill_attention_int8(q, k, v, chunks, is_causal=is_causal, config=SMALL)
    rounded = attention_prefill_int8.rounded_oracle(q, k, v, chunks, 32, is_causal=is_causal)
    assert_close(out, rounded, ROUNDED_RELATIVE_ERROR[out.dtype])
    exact = attention_prefill_int8.exact_oracle(q, k, v, chunks, is_causal=is_causal)
    assert_close(out, exact, INT8_SCORES_RELATIVE_ERROR)


@pytest.mark.parametrize("use_tma", [True, False])
def test_pages_in_random_order_give_what_contiguous_keys_give(use_tma: bool) -> None:
    lens = [50, 40]
    q, k, v = random_heads(42, 4, 32), random_heads(90, 2, 32), random_heads(90, 2, 32)
    whole = attention_prefill_int8.prefill_attention_int8(
        q, k, v, Chunks.of([37, 5], lens, "cpu"), config=SMALL
    )
    state = torch.get_rng_state()
    k_pages, _ = random_pages(k, lens, 32 if use_tma else 16)
    torch.set_rng_state(state)  # the same order of pages for both caches
    v_pages, table = random_pages(v, lens, 32 if use_tma else 16)
    config = Config({**SMALL.meta, "USE_TMA": use_tma})
    paged = attention_prefill_int8.prefill_attention_int8(
        q, k_pages, v_pages, Chunks.of([37, 5], lens, "cpu", table), config=config
    )
    assert torch.equal(paged, whole)


def test_heads_may_lie_inside_wider_rows() -> None:
    wide = random_heads(40, 6, 32)
    q, k, v = wide.split(2, dim=1)
    chunks = Chunks.of([40], [40], "cpu")
    out = attention_prefill_int8.prefill_attention_int8(q, k, v, chunks, config=SMALL)
    whole = [part.contiguous() for part in (q, k, v)]
    assert torch.equal(out, attention_prefill_int8.prefill_attention_int8(*whole, chunks, config=SMALL))


def test_a_channel_that_is_large_in_every_key_costs_no_accuracy() -> None:
    # Without smoothing, codes would step by 30 / 127 = 0.24 of a standard deviation instead of 0.03.
    q, k, v = (random_heads(64, 2, 32) for _ in range(3))
    k[:, :, 5] += 30
    chunks = Chunks.of([64], [64], "cpu")
    out = attention_prefill_int8.prefill_attention_int8(q, k, v, chunks, config=SMALL)
    assert_close(out, attention_prefill_int8.exact_oracle(q, k, v, chunks), INT8_SCORES_RELATIVE_ERROR)


def test_keys_that_are_all_alike_are_averaged_evenly() -> None:
    # Smoothed keys are zero, and so are the queries: every factor is as small as it gets.
    k, v = torch.ones(7, 1, 32, dtype=torch.float16), random_heads(7, 1, 32)
    out = attention_prefill_int8.prefill_attention_int8(
        torch.zeros_like(k), k, v, Chunks.of([7], [7], "cpu"), is_causal=False, config=SMALL
    )
    assert_close(out, v.double().mean(0, keepdim=True).expand(7, 1, 32))


def test_codes_of_keys_lie_within_half_a_step_of_the_smoothed_keys() -> None:
    k = random_heads(70, 2, 32)
    keys = quantize_keys.quantize_keys(k, Chunks.of([70], [70], "cpu"), 32)
    steps = keys.scales[0].double().repeat_interleave(32, 0)[:70, :, None]
    smooth = k.double() - k.double().mean(0)
    assert relative_error(keys.codes * steps, smooth) < 0.02
    assert ((keys.codes * steps - smooth).abs() <= 0.501 * steps).all()


def test_heads_that_int8_products_cannot_hold_are_refused() -> None:
    q, k, v = (random_heads(8, 1, 16) for _ in range(3))
    with pytest.raises(ValueError, match="32 or more"):
        attention_prefill_int8.prefill_attention_int8(q, k, v, Chunks.of([8], [8], "cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_size", [0, 16, 64, 128])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_int8_scores_on_the_gpu(gpu: str, head_dim: int, block_size: int, dtype: torch.dtype) -> None:
    query_lens, kv_lens = [700, 1, 129], [1000, 300, 129]
    q = random_heads(sum(query_lens), 16, head_dim, dtype=dtype, device=gpu)
    k, v = (random_heads(sum(kv_lens), 4, head_dim, dtype=dtype, device=gpu) for _ in range(2))
    chunks = Chunks.of(query_lens, kv_lens, gpu)
    exact = attention_prefill_int8.exact_oracle(q, k, v, chunks)
    if block_size:
        state = torch.get_rng_state()
        k, _ = random_pages(k, kv_lens, block_size)
        torch.set_rng_state(state)
        v, table = random_pages(v, kv_lens, block_size)
        chunks = Chunks.of(query_lens, kv_lens, gpu, table)
    out = attention_prefill_int8.prefill_attention_int8(q, k, v, chunks)
    assert_close(out, exact, INT8_SCORES_RELATIVE_ERROR)
