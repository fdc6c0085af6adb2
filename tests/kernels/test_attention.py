"""Attention against float64: masks, groups of query heads, context, pages in random order, splits."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import (
    attention_decode,
    attention_fa1,
    attention_mla_decode,
    attention_naive,
    attention_prefill,
)
from simllm.kernels.attention_prefill import Chunks
from simllm.kernels.tuning import Config

from .tolerance import assert_close


def random_heads(*shape: int, dtype: torch.dtype = torch.float16, device: str = "cpu") -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, device=device)


def random_table(num_requests: int, max_blocks: int, device: str = "cpu") -> torch.Tensor:
    """Block tables that share no block, in a random order, with some blocks of the cache left over."""
    return (
        torch.randperm(num_requests * max_blocks + 3)[: num_requests * max_blocks]
        .int()
        .view(num_requests, -1)
        .to(device)
    )


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_prefill_of_ragged_chunks_after_context(kv_heads: int, is_causal: bool) -> None:
    q, k, v = random_heads(42, 4, 32), random_heads(90, kv_heads, 32), random_heads(90, kv_heads, 32)
    chunks = Chunks.of([37, 5], [50, 40], "cpu")
    config = Config({"BLOCK_M": 16, "BLOCK_N": 16, "USE_TMA": True})
    out = attention_prefill.prefill_attention(q, k, v, chunks, is_causal=is_causal, config=config)
    assert_close(out, attention_prefill.prefill_attention_oracle(q, k, v, chunks, is_causal=is_causal))


@pytest.mark.parametrize(("block_n", "use_tma"), [(16, True), (32, False)])
def test_paged_prefill_follows_the_block_table(block_n: int, use_tma: bool) -> None:
    q, k, v = random_heads(42, 4, 32), random_heads(11, 16, 2, 32), random_heads(11, 16, 2, 32)
    chunks = Chunks.of([37, 5], [50, 40], "cpu", random_table(2, 4))
    config = Config({"BLOCK_M": 32, "BLOCK_N": block_n, "USE_TMA": use_tma})
    out = attention_prefill.prefill_attention(q, k, v, chunks, config=config)
    assert_close(out, attention_prefill.prefill_attention_oracle(q, k, v, chunks))


@pytest.mark.parametrize("is_causal", [True, False])
def test_naive_and_flash1_agree_with_float64(is_causal: bool) -> None:
    q, k, v = random_heads(75, 4, 32), random_heads(75, 2, 32), random_heads(75, 2, 32)
    oracle = attention_naive.naive_attention_oracle(q, k, v, is_causal=is_causal)
    tile = Config({"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32})
    assert_close(attention_naive.naive_attention(q, k, v, is_causal=is_causal, config=tile), oracle)
    blocks = Config({"BLOCK_M": 32, "BLOCK_N": 64})
    assert_close(attention_fa1.fa1_attention(q, k, v, is_causal=is_causal, config=blocks), oracle)


@pytest.mark.parametrize("query_len", [1, 3])
@pytest.mark.parametrize("use_tma", [True, False])
def test_decode_splits_ragged_contexts_over_random_pages(query_len: int, use_tma: bool) -> None:
    q, k, v = random_heads(2, query_len, 4, 32), random_heads(11, 16, 2, 32), random_heads(11, 16, 2, 32)
    table, lens = random_table(2, 4), torch.tensor([50, 17], dtype=torch.int32)
    config = Config({"BLOCK_N": 16, "USE_TMA": use_tma}, ctas_per_sm=8)
    out = attention_decode.decode_attention(q, k, v, table, lens, max_context_len=50, config=config)
    assert_close(out, attention_decode.decode_attention_oracle(q, k, v, table, lens))


def test_decode_dequantises_int8_pages_with_a_scale_per_head() -> None:
    k, v = (torch.randint(-127, 128, (11, 16, 2, 32), dtype=torch.int8) for _ in range(2))
    q, table, lens = random_heads(2, 1, 4, 32), random_table(2, 4), torch.tensor([33, 64], dtype=torch.int32)
    scales = {"k_scale": torch.tensor([0.01, 0.02]), "v_scale": torch.tensor([0.03, 0.01])}
    out = attention_decode.decode_attention(q, k, v, table, lens, max_context_len=64, **scales)
    assert_close(out, attention_decode.decode_attention_oracle(q, k, v, table, lens, **scales))


def test_latent_decode_uses_the_cache_as_key_and_value() -> None:
    q, cache = random_heads(2, 20, 96), random_heads(11, 16, 96)
    table, lens = random_table(2, 4), torch.tensor([61, 17], dtype=torch.int32)
    sizes = {"latent_dim": 64, "scale": 0.1}
    config = Config({"BLOCK_H": 16, "BLOCK_N": 16}, ctas_per_sm=4)
    out = attention_mla_decode.mla_decode_attention(
        q, cache, table, lens, max_context_len=61, config=config, **sizes
    )
    assert_close(out, attention_mla_decode.mla_decode_oracle(q, cache, table, lens, **sizes))


def test_the_oracle_itself_agrees_with_torch() -> None:
    q, k, v = (torch.randn(9, 2, 8, dtype=torch.float64) for _ in range(3))
    batched = (rows.transpose(0, 1)[None] for rows in (q, k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(*batched, is_causal=True)[0].transpose(0, 1)
    torch.testing.assert_close(attention_prefill.attend(q, k, v, is_causal=True), expected)


def test_a_chunk_cannot_be_longer_than_its_request() -> None:
    with pytest.raises(ValueError, match="chunk of 5 tokens cannot end at token 4"):
        Chunks.of([5], [4], "cpu")


def test_a_quantised_cache_without_scales_is_refused() -> None:
    cache = torch.zeros(2, 16, 2, 32, dtype=torch.int8)
    lens = torch.tensor([3], dtype=torch.int32)
    with pytest.raises(ValueError, match="k_scale"):
        attention_decode.decode_attention(
            random_heads(1, 1, 4, 32), cache, cache, random_table(1, 1), lens, max_context_len=3
        )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_size", [0, 16, 32, 64, 128])
def test_prefill_on_the_gpu(gpu: str, block_size: int, dtype: torch.dtype) -> None:
    query_lens, kv_lens = [700, 1, 129], [1000, 300, 129]
    q = random_heads(sum(query_lens), 16, 128, dtype=dtype, device=gpu)
    max_blocks = -(-1000 // block_size) if block_size else 0
    shape = (3 * max_blocks + 3, block_size, 4, 128) if block_size else (sum(kv_lens), 4, 128)
    k, v = random_heads(*shape, dtype=dtype, device=gpu), random_heads(*shape, dtype=dtype, device=gpu)
    chunks = Chunks.of(query_lens, kv_lens, gpu, random_table(3, max_blocks, gpu) if block_size else None)
    out = attention_prefill.prefill_attention(q, k, v, chunks)
    assert_close(out, attention_prefill.prefill_attention_oracle(q, k, v, chunks))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
@pytest.mark.parametrize("query_len", [1, 4, 8])
def test_decode_on_the_gpu(gpu: str, query_len: int, block_size: int, dtype: torch.dtype) -> None:
    is_narrow = dtype.itemsize == 1
    q_dtype = torch.bfloat16 if is_narrow else dtype
    q, max_blocks = random_heads(3, query_len, 32, 128, dtype=q_dtype, device=gpu), 1024 // block_size
    shape = (3 * max_blocks + 3, block_size, 8, 128)
    k, v = ((torch.randn(shape, device=gpu) * (30 if dtype == torch.int8 else 1)).to(dtype) for _ in range(2))
    lens = torch.tensor([1024, 77, query_len], dtype=torch.int32, device=gpu)
    scale = torch.full((8,), 0.03 if dtype == torch.int8 else 1.0, device=gpu)
    scales = {"k_scale": scale, "v_scale": scale} if is_narrow else {}
    table = random_table(3, max_blocks, gpu)
    out = attention_decode.decode_attention(q, k, v, table, lens, max_context_len=1024, **scales)
    assert_close(out, attention_decode.decode_attention_oracle(q, k, v, table, lens, **scales))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_heads", [16, 128])
def test_latent_decode_on_the_gpu(gpu: str, num_heads: int, dtype: torch.dtype) -> None:
    # On Hopper 128 heads run on the kernel written for it, 16 on the portable one.
    q, cache = (random_heads(*shape, 576, dtype=dtype, device=gpu) for shape in ((3, num_heads), (51, 64)))
    table, lens = random_table(3, 16, gpu), torch.tensor([1024, 77, 1], dtype=torch.int32, device=gpu)
    sizes = {"latent_dim": 512, "scale": 192**-0.5}
    out = attention_mla_decode.mla_decode_attention(q, cache, table, lens, max_context_len=1024, **sizes)
    assert_close(out, attention_mla_decode.mla_decode_oracle(q, cache, table, lens, **sizes))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_naive_and_flash1_on_the_gpu(gpu: str, dtype: torch.dtype) -> None:
    q, k, v = (random_heads(1000, heads, 128, dtype=dtype, device=gpu) for heads in (8, 2, 2))
    oracle = attention_naive.naive_attention_oracle(q, k, v)
    assert_close(attention_naive.naive_attention(q, k, v), oracle)
    assert_close(attention_fa1.fa1_attention(q, k, v), oracle)
