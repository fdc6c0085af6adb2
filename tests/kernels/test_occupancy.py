"""How many warps fit an SM, by hand."""

# ruff: noqa: E402 (what follows can be imported only where torch is)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")

from simllm.kernels.occupancy import SmLimits, device_limits, occupancy

HOPPER = SmLimits(warps=64, ctas=32, registers=65_536, shared_bytes=233_472)


@pytest.mark.parametrize(
    ("registers", "shared_bytes", "num_warps", "warps", "limit"),
    [
        # 168 * 128 = 21,504 of 65,536 registers: three CTAs of four warps.
        (168, 0, 4, 12, "registers"),
        # 161 registers are handed out as 168.
        (161, 0, 4, 12, "registers"),
        # 98,304 + 1,024 of 233,472 bytes: two CTAs of eight warps.
        (64, 98_304, 8, 16, "shared memory"),
        # 32 * 1,024 registers leave room for two CTAs of 32 warps, all that an SM holds.
        (32, 0, 32, 64, "registers"),
        (16, 0, 16, 64, "warps"),
        # One warp a CTA: 32 CTAs end it at half of the warps.
        (32, 0, 1, 32, "CTAs"),
    ],
)
def test_the_scarcest_resource_decides(
    registers: int, shared_bytes: int, num_warps: int, warps: int, limit: str
) -> None:
    found = occupancy(HOPPER, registers_per_thread=registers, shared_bytes=shared_bytes, num_warps=num_warps)
    assert (found.warps, found.share) == (warps, warps / 64)
    assert found.limit == limit


@pytest.mark.gpu
def test_the_limits_of_a_hopper_gpu_are_read_off_the_device(gpu: str) -> None:
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    assert device_limits(gpu) == HOPPER
