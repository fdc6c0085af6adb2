"""Unit factors, so that no bare power of ten or two appears in a formula."""

from __future__ import annotations

KIB, MIB, GIB = 2**10, 2**20, 2**30
US = 1e-6
MS_PER_S = 1e3

# Bytes of one element as stored in memory, by the names that vLLM and torch users type.
DTYPE_BYTES: dict[str, float] = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
}
