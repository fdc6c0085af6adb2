"""What small KV blocks cost the kernel that reads them: too few bytes in flight.

A warp fetches one block of one KV head at a time, in one piece of keys and one of values, and waits for it.
By Little's law an SM then gets at most the bytes in flight per latency of HBM: with blocks of few tokens
that is less than its share of the bandwidth. Large blocks gain nothing beyond.
SIMPLIFIED: one kernel design for all block sizes; effect: kernels that gather several blocks per load stand
blocks of 1 to 4 tokens better than this.
Source: Little's law; PagedAttention (arXiv 2309.06180) section 7.2, where blocks of 16 and more are read at
full speed and smaller ones are not.
"""

from __future__ import annotations

from .device import DeviceSpec

# From a load's issue to its data, HBM busy.
# Source: estimated, 0.5-0.6 us idle on A100 and H100 (Chips and Cheese, 2023), longer under load.
HBM_LATENCY_S = 0.7e-6

# Warps per SM that wait for blocks at a time.
# Source: estimated, 4 to 8 CTAs of 4 warps as registers allow (vLLM csrc/attention/attention_kernels.cuh).
WARPS_IN_FLIGHT = 24

# How sharply latency and bandwidth meet, as the exponent of their sum; 4 is nearly the longer of both.
_CORNER = 4.0


def paged_read_factor(device: DeviceSpec, *, block_size: int, head_bytes: float) -> float:
    """Returns the time of reading cached keys and values over that with large blocks, at least 1.

    head_bytes: keys and values of one token and KV head [B]. H200, bf16 heads of 128 dimensions: 4.15 for
    blocks of 1 token, 1.21 for 4, 1.001 for 16.
    """
    in_flight = WARPS_IN_FLIGHT * block_size * head_bytes / 2  # keys, then values
    needed = HBM_LATENCY_S * device.hbm_bytes_per_s / device.num_sms
    return float((1 + (needed / in_flight) ** _CORNER) ** (1 / _CORNER))
