"""Attention's pairs, FLOPs and traffic, against hand counts and against each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.hwmodels import ops

# Llama-3.1-8B: 32 query heads, 8 KV heads of 128.
LLAMA = ops.AttentionShape.grouped_query(32, 8, 128, dtype="bf16")

LENGTHS = st.integers(0, 300)


def test_a_chunk_of_512_after_1024_has_655616_pairs():
    assert ops.attention_pairs(512, 1024) == 512 * 1024 + 131_328 == 655_616


@given(query=st.integers(1, 200), context=LENGTHS, window=st.one_of(st.none(), st.integers(1, 300)))
def test_pairs_are_the_keys_that_each_query_sees(query, context, window):
    seen = [context + i + 1 for i in range(query)]
    expected = sum(seen if window is None else [min(keys, window) for keys in seen])
    assert ops.attention_pairs(query, context, window) == expected


@given(query=st.integers(1, 500), context=LENGTHS, tile=st.sampled_from([1, 32, 128]), window=LENGTHS)
def test_tiles_issue_at_least_the_pairs_they_need(query, context, tile, window):
    limit = window or None
    assert ops.issued_pairs(query, context, tile, limit) >= ops.attention_pairs(query, context, limit)


def test_issued_pairs_round_queries_up_and_compute_the_whole_diagonal():
    # 100 queries in tiles of 64 after 10 keys: tile 1 sees 10 + 64, tile 2 sees 10 + 128.
    assert ops.issued_pairs(100, 10, 64) == 64 * 74 + 64 * 138


def test_a_pair_costs_four_flops_per_head_dimension():
    assert LLAMA.flops_per_pair == 4 * 32 * 128


def test_grouped_heads_share_a_tile_of_128_rows():
    assert LLAMA.tile_tokens == 32  # 4 query heads per KV head
    assert ops.AttentionShape.grouped_query(32, 32, 128, dtype="bf16").tile_tokens == 128
    assert ops.AttentionShape.grouped_query(512, 1, 128, dtype="bf16").tile_tokens == 1


def test_prefill_reads_keys_once_from_hbm_and_per_tile_from_l2():
    op = ops.prefill_attention(LLAMA, query_len=128, context_len=0)
    kv, q_and_o = 128 * 2 * 8 * 128 * 2, 2 * 128 * 32 * 128 * 2
    assert op.flops == 128 * 129 / 2 * 4 * 32 * 128
    assert op.hbm_bytes == kv + q_and_o
    # Four tiles of 32 tokens see 32, 64, 96, 128 keys of 4,096 B.
    assert op.l2_bytes == (32 + 64 + 96 + 128) * 4096


def test_equal_chunks_cost_their_number():
    one = ops.prefill_attention(LLAMA, query_len=100, context_len=50)
    three = ops.prefill_attention(LLAMA, query_len=100, context_len=50, count=3)
    assert three.flops == 3 * one.flops
    assert three.hbm_bytes == 3 * one.hbm_bytes


def test_a_window_bounds_the_keys_of_prefill():
    windowed = ops.prefill_attention(LLAMA, query_len=64, context_len=8000, window=4096)
    assert windowed.flops == 64 * 4096 * LLAMA.flops_per_pair
    assert windowed.hbm_bytes == (64 + 4096) * 4096 + 64 * LLAMA.query_bytes_per_token


def test_decoding_reads_each_cached_token_once_for_all_query_heads():
    # Llama-3.1-8B keeps 4,096 B per token and layer.
    op = ops.decode_attention(LLAMA, sum_context=1000, count=10)
    assert op.hbm_bytes == 1000 * 4096 + 10 * 2 * 32 * 128 * 2
    assert op.flops == 1000 * 4 * 32 * 128


def test_speculative_decoding_reads_the_cache_once_for_all_its_tokens():
    one = ops.decode_attention(LLAMA, sum_context=1000, count=1)
    four = ops.decode_attention(LLAMA, sum_context=1000, count=1, query_len=4)
    assert four.hbm_bytes - one.hbm_bytes == 3 * LLAMA.query_bytes_per_token
    # Tokens see 997, 998, 999 and 1,000 entries.
    assert four.flops == (997 + 998 + 999 + 1000) * LLAMA.flops_per_pair


def test_decoding_pads_the_query_rows_of_a_kv_head_to_16():
    # 4 query heads per KV head fill 4 of 16 rows; with 5 query tokens 20 of 32.
    op = ops.decode_attention(LLAMA, sum_context=1000, count=1)
    assert op.issued_flops == 4 * op.flops
    assert LLAMA.decode_issued_flops_per_token(5) == 2 * LLAMA.decode_issued_flops_per_token(1)


def test_fp8_cache_halves_the_bytes_of_a_token():
    fp8 = ops.AttentionShape.grouped_query(32, 8, 128, dtype="bf16", kv_dtype="fp8")
    assert fp8.kv_bytes_per_token == LLAMA.kv_bytes_per_token / 2


def test_naive_attention_moves_the_score_matrix_four_times():
    op = ops.naive_attention(LLAMA, seq_len=1024)
    assert op.hbm_bytes == 4 * 1024**2 * 32 * 2 + 1024 * (4096 + 16384)
    assert op.issued_flops == 1024**2 * LLAMA.flops_per_pair
    assert op.flops == 1024 * 1025 / 2 * LLAMA.flops_per_pair


def test_flash1_passes_q_and_o_through_hbm_once_per_block_of_keys():
    # 192 KiB hold 98,304 elements of 2 B: blocks of 98,304 / (4 * 128) = 192 keys, 6 passes over 1,024.
    op = ops.flash1_attention(LLAMA, seq_len=1024, sram_bytes_per_sm=192 * 1024)
    assert op.hbm_bytes == 1024 * (4096 + 6 * 32 * 3 * 128 * 2)


def test_each_algorithm_moves_less_than_the_one_before():
    naive = ops.naive_attention(LLAMA, seq_len=8192)
    flash1 = ops.flash1_attention(LLAMA, seq_len=8192, sram_bytes_per_sm=192 * 1024)
    flash2 = ops.prefill_attention(LLAMA, query_len=8192, context_len=0)
    assert naive.hbm_bytes > flash1.hbm_bytes > flash2.hbm_bytes
    assert naive.flops == flash1.flops == flash2.flops


def test_expanded_mla_costs_81920_flops_a_pair():
    shape = ops.mla_expanded(128, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, dtype="bf16")
    assert shape.flops_per_pair == 81_920


def test_absorbed_mla_costs_278528_flops_a_pair_and_reads_1152_bytes_for_all_heads():
    shape = ops.mla_absorbed(
        128, kv_lora_rank=512, qk_rope_head_dim=64, dtype="bf16", kv_bytes_per_token=576 * 2
    )
    assert shape.flops_per_pair == 278_528
    assert shape.flops_per_pair / shape.kv_bytes_per_token == pytest.approx(242, abs=0.5)


def test_attention_flops_agree_with_torch_s_counter():
    torch = pytest.importorskip("torch", reason="torch counts FLOPs only where it is installed")
    from torch.utils.flop_counter import FlopCounterMode

    heads = ops.AttentionShape.grouped_query(4, 4, 64, dtype="bf16")
    tensor = torch.empty(1, 4, 128, 64, device="meta")
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.scaled_dot_product_attention(tensor, tensor, tensor)
    assert counter.get_total_flops() == ops.naive_attention(heads, seq_len=128, is_causal=False).flops
