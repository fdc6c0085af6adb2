"""FLOPs and bytes of matrix products, experts, and everything between them, against hand counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.hwmodels import ops


def test_a_gemm_counts_two_flops_per_multiply_add_and_each_operand_once():
    op = ops.gemm(4, 6, 8, "bf16")
    assert op.flops == 2 * 4 * 6 * 8
    assert op.hbm_bytes == 2 * (4 * 8 + 6 * 8 + 4 * 6)


def test_a_gemm_reads_quantised_weights_at_their_own_width():
    op = ops.gemm(4, 6, 8, "bf16", weight_dtype="int4", out_dtype="fp32")
    assert op.hbm_bytes == 2 * 4 * 8 + 0.5 * 6 * 8 + 4 * 4 * 6


def test_a_gemm_pads_its_output_to_whole_tiles():
    # 130 x 300 in tiles of 128 x 128: 2 x 3 tiles.
    op = ops.gemm(130, 300, 64, "bf16", tile=ops.Tile(128, 128))
    assert op.num_tiles == 6
    assert op.issued_flops == 6 * 2 * 128 * 128 * 64


def test_a_gemm_loads_a_tile_s_rows_and_half_its_weight_panel_from_l2():
    # One CTA pair shares the panel: 2 tiles x 64 x (128 + 128 / 2) elements of 2 B.
    op = ops.gemm(256, 128, 64, "bf16", tile=ops.Tile(128, 128))
    assert op.l2_bytes == 2 * 64 * (128 + 64) * 2


def test_splitting_k_adds_ctas_and_fp32_partial_sums_but_no_flops():
    whole = ops.gemm(16, 128, 4096, "bf16")
    split = ops.gemm(16, 128, 4096, "bf16", split_k=4)
    assert split.num_tiles == 4 * whole.num_tiles
    assert split.issued_flops == whole.issued_flops
    assert split.l2_bytes - whole.l2_bytes == 4 * 16 * 128 * 4 * 2


@pytest.mark.parametrize("tokens, experts", [(1, 8.0), (32, 163.3), (128, 251.6)])
def test_distinct_experts_of_256_with_top_8(tokens, experts):
    assert ops.expected_distinct_experts(256, 8, tokens) == pytest.approx(experts, abs=0.05)


def test_every_expert_is_hit_when_each_token_picks_all():
    assert ops.expected_distinct_experts(4, 4, 1) == 4
    assert ops.expected_distinct_experts(4, 4, 0) == 0


@given(tokens=st.integers(1, 5000))
def test_more_tokens_hit_more_experts_and_never_more_than_there_are(tokens):
    now, then = (ops.expected_distinct_experts(128, 8, count) for count in (tokens, tokens + 1))
    assert 8 - 1e-9 <= now <= then <= 128


def test_one_token_reads_the_weights_of_its_top_k_experts():
    op = ops.grouped_gemm(1, 1536, 2048, "bf16", num_experts=128, top_k=8)
    rows_bytes = 8 * (1536 + 2048) * 2
    assert op.flops == 2 * 8 * 1536 * 2048
    assert op.hbm_bytes == pytest.approx(8 * 1536 * 2048 * 2 + rows_bytes)


def test_each_touched_expert_pads_its_rows_to_a_tile():
    # One token, 8 experts, one row each: 8 tiles of 16 x 128 per 128 output features.
    op = ops.grouped_gemm(1, 128, 64, "bf16", num_experts=128, top_k=8, tile=ops.Tile(16, 128))
    assert op.num_tiles == pytest.approx(8)
    assert op.issued_flops == pytest.approx(8 * 2 * 16 * 128 * 64)


def test_grouped_gemm_with_all_experts_on_every_token_is_as_many_gemms():
    op = ops.grouped_gemm(64, 256, 512, "bf16", num_experts=2, top_k=2, tile=ops.Tile(64, 128))
    assert op.num_tiles == 2 * 1 * 2
    assert op.flops == 2 * ops.gemm(64, 256, 512, "bf16").flops


def test_routing_reads_fp32_logits_and_writes_ids_and_weights():
    assert ops.route(10, 128, 8).hbm_bytes == 10 * 128 * 4 + 10 * 8 * 8


def test_few_rows_are_not_aligned_to_their_experts():
    # 8 of 128 experts: 4 tokens have 32 rows, a quarter of the experts; 5 have more.
    assert not ops.needs_alignment(4, 128, 8)
    assert ops.needs_alignment(5, 128, 8)


def test_aligning_rows_takes_time_by_its_dependent_steps():
    assert ops.align_experts(4096, 1).latency_s == pytest.approx(3.9e-6 + 4096 * 0.36e-9)
    few, many = ops.align_experts(1, 8), ops.align_experts(4096, 8)
    assert many.latency_s - few.latency_s == pytest.approx(4095 * 8 * 0.36e-9)


def test_combining_experts_reads_all_copies_and_writes_one():
    assert ops.combine_experts(10, 8, 2048, "bf16").hbm_bytes == (80 + 10) * 2048 * 2


def test_a_norm_with_residual_reads_two_and_writes_two():
    assert ops.rms_norm(3, 4096, "bf16").hbm_bytes == 4 * 3 * 4096 * 2
    assert ops.rms_norm(3, 4096, "bf16", has_residual=False).hbm_bytes == 2 * 3 * 4096 * 2
    assert ops.layer_norm(3, 4096, "bf16").hbm_bytes == ops.rms_norm(3, 4096, "bf16").hbm_bytes
    assert ops.layer_norm(3, 4096, "bf16").flops > ops.rms_norm(3, 4096, "bf16").flops


def test_elementwise_ops_move_what_they_read_and_write():
    assert ops.silu_mul(5, 14336, "bf16").hbm_bytes == 3 * 5 * 14336 * 2
    assert ops.activation(5, 14336, "bf16").hbm_bytes == 2 * 5 * 14336 * 2
    assert ops.rope(5, 40, 128, "bf16").hbm_bytes == 2 * 5 * 40 * 128 * 2
    assert ops.embedding(5, 4096, "bf16").hbm_bytes == 2 * 5 * 4096 * 2
    assert ops.quantize(1000, "bf16", "fp8").hbm_bytes == 1000 * (2 + 2 + 1)
    passes = (ops.quantize_max(10, 100, "bf16", "fp8"), ops.quantize_scaled(10, 100, "bf16", "fp8"))
    assert sum(op.hbm_bytes for op in passes) == 1000 * (2 + 2 + 1)


def test_a_kv_write_reads_activations_and_writes_cache_entries():
    # 8 KV heads of 128, K and V: 2,048 elements, 2 B in, 1 B out.
    op = ops.kv_write(7, 2048, "bf16", kv_bytes_per_token=2048.0)
    assert op.hbm_bytes == 7 * 2048 * 3


def test_sampling_reads_the_logits_once_and_then_passes_over_fp32_copies():
    assert ops.sampling(2, 1000, "bf16").hbm_bytes == 2 * 1000 * (2 + 7 * 4)


def test_a_patch_embedding_is_a_product_over_all_pixels_of_a_patch():
    # Qwen2.5-VL: 3 colours x 2 frames x 14 x 14 = 1,176 values to 1,280.
    op = ops.patch_embed(100, patch_size=14, temporal_patch_size=2, hidden_size=1280, dtype="bf16")
    assert op.flops == 2 * 100 * 1176 * 1280


def test_vision_windows_hold_what_fits_and_a_rest():
    assert ops.vision_pairs(1200, 64) == 18 * 64**2 + 48**2
    assert ops.vision_pairs(50, 64) == ops.vision_pairs(50) == 2500


def test_vision_attention_sees_every_pair_both_ways():
    heads = ops.AttentionShape.grouped_query(16, 16, 80, dtype="bf16")
    op = ops.vision_attention(heads, 1024)
    assert op.flops == 4 * 16 * 80 * 1024**2
    assert op.hbm_bytes == 4 * 1024 * 16 * 80 * 2


@given(m=st.integers(1, 4096), grow=st.integers(1, 64))
def test_candidates_only_drop_out_as_rows_are_added(m, grow):
    few = [op.kind for op in ops.gemm_candidates(m, 256, 256, "bf16")]
    many = [op.kind for op in ops.gemm_candidates(m + grow, 256, 256, "bf16")]
    assert len(many) <= len(few)


def test_flops_agree_with_torch_s_counter():
    torch = pytest.importorskip("torch", reason="torch counts FLOPs only where it is installed")
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        torch.empty(16, 64, device="meta") @ torch.empty(64, 32, device="meta")
    assert counter.get_total_flops() == ops.gemm(16, 32, 64, "bf16").flops
