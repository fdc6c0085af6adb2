"""Which formula prices which operation. The formulas: `op_gemm`, `op_prefill`, `op_decode`, `op_stream`."""

from __future__ import annotations

from collections.abc import Mapping

from .op_decode import DECODE
from .op_form import Form
from .op_gemm import GEMM
from .op_prefill import PREFILL
from .op_stream import STREAM

FORMS: Mapping[str, Form] = {form.name: form for form in (GEMM, PREFILL, DECODE, STREAM)}
FORM_OF_OP: Mapping[str, str] = {
    "gemm": "gemm",
    "gemm_block_scaled": "gemm",
    "gemm_weight_only": "gemm",
    "grouped_gemm": "gemm",
    "patch_embed": "gemm",
    "attention_prefill": "prefill",
    "attention_vision": "prefill",
    "attention_decode": "decode",
    "mla_decode": "decode",
    "rms_norm": "stream",
    "layer_norm": "stream",
    "silu_mul": "stream",
    "softmax": "stream",
    "quantize_per_token": "stream",
    "quantize_per_group": "stream",
    "rope": "stream",
    "sampling": "stream",
}


def form_of(op: str) -> Form:
    """Returns the formula that prices an op."""
    return FORMS[FORM_OF_OP[op]]
