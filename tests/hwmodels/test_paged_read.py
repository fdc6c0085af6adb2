"""Block sizes and the bytes in flight, by Little's law."""

from __future__ import annotations

import pytest

from simllm.hwmodels.device import load_device
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.paged_read import HBM_LATENCY_S, WARPS_IN_FLIGHT, paged_read_factor
from simllm.hwmodels.roofline_step import RooflineStepModel
from simllm.hwmodels.step import DecodeGroup

H200 = load_device("h200-sxm")
BF16_HEAD = 512  # keys and values of 128 dimensions


@pytest.mark.parametrize(("block_size", "factor"), [(1, 4.15), (4, 1.21), (16, 1.001), (256, 1.0)])
def test_blocks_of_an_h200_are_read_at_full_speed_from_16_tokens_on(block_size: int, factor: float) -> None:
    found = paged_read_factor(H200, block_size=block_size, head_bytes=BF16_HEAD)
    assert found == pytest.approx(factor, rel=0.01)


def test_tiny_blocks_are_bound_by_latency() -> None:
    # An SM holds 24 warps with 64 bytes each; HBM delivers 1,536 bytes per 0.7 us instead of 4.8 TB/s / 132.
    needed = HBM_LATENCY_S * H200.hbm_bytes_per_s / H200.num_sms
    factor = paged_read_factor(H200, block_size=1, head_bytes=128)
    assert factor == pytest.approx(needed / (WARPS_IN_FLIGHT * 64), rel=1e-3)


def test_only_small_blocks_slow_decodes_down() -> None:
    def line(block_size: int | None) -> float:
        model = RooflineStepModel(
            load_model("llama-3.1-8b"),
            H200,
            weight_dtype="bf16",
            activation_dtype="bf16",
            kv_dtype="bf16",
            block_size=block_size,
        )
        return model.decode_line(DecodeGroup(1, 64, 64 * 4096, 4096), 1).base_terms[
            model.terms.index("attention_decode")
        ]

    assert line(16) == pytest.approx(line(None), rel=2e-3)
    assert line(1) > 3 * line(None)
