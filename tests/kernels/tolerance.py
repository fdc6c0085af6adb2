"""The errors that the kernel tests allow, and why.

Every comparison is ||out - oracle|| / ||oracle|| with the oracle in float64 of the very inputs the kernel
saw, so only the kernel's own roundings count.
"""

from __future__ import annotations

import torch

# The output's own rounding is a uniform error of at most half a unit in the last place: 2^-11 relative for
# fp16 and 2^-8 for bf16 at worst, a third to a half of that in the norm. fp32 sums add 1e-6; attention also
# rounds its probabilities to the output's type before the second product, which doubles the error at most. A
# wrong index gives more than 0.1.
RELATIVE_ERROR = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}

# On a GPU an fp32 product runs as tf32, with 10 bits of mantissa as fp16 has.
GPU_RELATIVE_ERROR = {torch.float32: 1e-3, torch.float16: 1e-3, torch.bfloat16: 8e-3}

# The tensor core keeps about 14 bits between additions of fp8 products (DeepSeek-V3, arXiv 2412.19437,
# section 3.3.2).
FP8_RELATIVE_ERROR = 1e-2

# A score q k / sqrt(d) of normal numbers has a spread of 1. The largest of d queries has 3 spreads, that of a
# tile of keys 4, so codes step by 3 / 127 and 4 / 127: roundings of 0.7 and 0.9 % in the norm, 1.1 % of a
# score together, and as much of the output. Twice that is allowed.
INT8_SCORES_RELATIVE_ERROR = 2.2e-2

# Beside its own rounding, attention with int8 scores errs as in 16 bits, but that a value half-way between
# two codes may go either way in fp32: by one step in 127, for one element in some thousand.
ROUNDED_RELATIVE_ERROR = {torch.float16: 2e-3, torch.bfloat16: 1e-2}


def relative_error(out: torch.Tensor, oracle: torch.Tensor) -> float:
    """Returns ||out - oracle|| / ||oracle||; NaN, which passes no comparison, if either holds one."""
    return float((out.double() - oracle.double()).norm() / oracle.double().norm())


def assert_close(out: torch.Tensor, oracle: torch.Tensor, limit: float | None = None) -> None:
    """Fails unless `out` has the oracle's shape and lies within the limit of its dtype."""
    assert out.shape == oracle.shape
    table = GPU_RELATIVE_ERROR if out.is_cuda else RELATIVE_ERROR
    allowed = table[out.dtype] if limit is None else limit
    error = relative_error(out, oracle)
    assert error <= allowed, f"relative error {error:.2e} exceeds {allowed:.0e}"
