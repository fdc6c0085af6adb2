"""The dtypes of a deployment: weights, activations, KV cache, and what the matrix units multiply in."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SimllmError, nearest_choice
from ..units import DTYPE_BYTES
from .device import DeviceSpec


@dataclass(frozen=True, slots=True)
class Precision:
    """Dtypes of one deployment. compute: what the linear layers multiply in."""

    weight: str
    activation: str
    kv: str
    compute: str

    @classmethod
    def on(cls, device: DeviceSpec, *, weight: str, activation: str, kv: str) -> Precision:
        """Returns the precision on a device: quantised products where it has the units for them.

        fp8 and int8 weights then meet activations quantised on the fly; otherwise, and for int4, weights
        are widened in registers and multiplied in the activations' dtype.
        Source: vLLM, quantization/fp8.py (W8A8 from compute capability 8.9, Marlin weight-only below).
        Raises: SimllmError for a dtype of weights or activations that is not in `units.DTYPE_BYTES`.
        """
        for name, dtype in (("weight", weight), ("activation", activation)):
            if dtype not in DTYPE_BYTES:
                nearest = nearest_choice(dtype, DTYPE_BYTES)
                hint = "" if nearest is None else f"; did you mean {nearest!r}?"
                raise SimllmError(f"unknown {name} dtype {dtype!r}{hint}")
        is_native = weight in ("fp8", "int8") and weight in device.matrix_flops_per_s
        return cls(weight, activation, kv, compute=weight if is_native else activation)
