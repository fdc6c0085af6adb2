"""How a deployment stores weights, activations and KV cache, and what the matrix units multiply in."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SimllmError, nearest_choice
from ..units import DTYPE_BYTES
from .compression import NO_COMPRESSION, WEIGHT_GROUP_BYTES, WIDEN_FLOPS, KvCompression
from .device import DeviceSpec
from .model import ModelSpec


@dataclass(frozen=True, slots=True)
class Precision:
    """Dtypes of one deployment. compute: what the linear layers multiply in.

    weight_scale_bytes: scales and zero points beside one quantised weight [B]. kv_widen_flops: vector work to
    widen one cached element, 0 where it is multiplied as it is.
    """

    weight: str
    activation: str
    kv: str
    compute: str
    weight_scale_bytes: float = 0.0
    kv_widen_flops: float = 0.0
    kv_compression: KvCompression = NO_COMPRESSION

    @classmethod
    def on(
        cls,
        device: DeviceSpec,
        *,
        weight: str,
        activation: str,
        kv: str,
        weight_group_size: int | None = None,
        kv_compression: KvCompression = NO_COMPRESSION,
    ) -> Precision:
        """Returns the precision on a device: quantised products where it has the units for them.

        fp8 and int8 weights then meet activations quantised on the fly; otherwise, and for int4, weights
        are widened in registers and multiplied in the activations' dtype.
        weight_group_size: weights that share a scale and a zero point; None if so many that they don't count.
        Source: vLLM, quantization/fp8.py (W8A8 from compute capability 8.9, Marlin weight-only below).
        Raises: SimllmError for a dtype of weights or activations that is not in `units.DTYPE_BYTES`.
        """
        for name, dtype in (("weight", weight), ("activation", activation)):
            if dtype not in DTYPE_BYTES:
                nearest = nearest_choice(dtype, DTYPE_BYTES)
                hint = "" if nearest is None else f"; did you mean {nearest!r}?"
                raise SimllmError(f"unknown {name} dtype {dtype!r}{hint}")
        is_native = weight in ("fp8", "int8") and weight in device.matrix_flops_per_s
        multiplies_kv = kv == activation or (kv == "fp8" and kv in device.matrix_flops_per_s)
        return cls(
            weight,
            activation,
            kv,
            compute=weight if is_native else activation,
            weight_scale_bytes=WEIGHT_GROUP_BYTES / weight_group_size if weight_group_size else 0.0,
            kv_widen_flops=0.0 if multiplies_kv else WIDEN_FLOPS,
            kv_compression=kv_compression,
        )

    @property
    def multiplies_kv_in_fp8(self) -> bool:
        """Whether attention runs on fp8 units, on an fp8 cache as it is stored."""
        return self.kv == "fp8" and not self.kv_widen_flops

    @property
    def weight_bytes(self) -> float:
        """Bytes of one weight of the layers' matrices, its share of scales included."""
        return DTYPE_BYTES[self.weight] + self.weight_scale_bytes

    def kv_bytes_per_token(self, model: ModelSpec, *, tp: int = 1) -> float:
        """Returns one token that stays in the cache, all layers on one of `tp` ranks, scales included [B]."""
        num_bytes, compression = model.kv_bytes_per_token(self.kv, tp=tp), self.kv_compression
        if compression.scale_bytes:
            num_bytes *= 1 + compression.scale_bytes / DTYPE_BYTES[self.kv]
        return num_bytes

    def kept_kv_bytes_per_token(self, model: ModelSpec, *, tp: int = 1) -> float:
        """Returns what a token of a context takes up on average, dropped ones counted as none [B]."""
        return self.kv_compression.keep_share * self.kv_bytes_per_token(model, tp=tp)
