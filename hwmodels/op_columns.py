"""The table of operations that a user hands in: which columns an operation needs, and its point of them.

Cells are texts. Everything wrong with a row is told at once, in words that name the column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SimllmError, nearest_choice
from ..units import DTYPE_BYTES
from .op_point import OpPoint

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv")
# Operations that no profile measures alone; the roofline prices them.
ROOFLINE_OPS = ("activation", "embedding", "quantize", "conv2d")

_PRODUCT = ("m", "n", "k")
_ROWS = ("m", "n")
_HEADS = ("num_q_heads", "num_kv_heads", "head_dim")
NEEDED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("gemm", "gemm_block_scaled", "gemm_weight_only", "patch_embed", "conv2d"), _PRODUCT),
    "grouped_gemm": (*_PRODUCT, "num_experts", "top_k"),
    "attention_prefill": ("batch", "query_len", *_HEADS),
    "attention_vision": ("batch", "query_len", *_HEADS),
    "attention_decode": ("batch", "context_len", *_HEADS),
    "mla_decode": ("batch", "context_len", "num_q_heads", "head_dim", "k"),
    "rope": ("m", *_HEADS),
    **dict.fromkeys(
        ("rms_norm", "layer_norm", "silu_mul", "softmax", "sampling", "quantize_per_token"), _ROWS
    ),
    **dict.fromkeys(("quantize_per_group", "activation", "embedding", "quantize"), _ROWS),
    **dict.fromkeys(COLLECTIVES, ("num_bytes", "num_gpus")),
}
# Columns that an operation takes if they are there, and what it takes if not.
OPTIONAL: Mapping[str, Mapping[str, int]] = {
    "attention_prefill": {"context_len": 0},
    "attention_decode": {"query_len": 1, "max_context_len": 0},
    "mla_decode": {"query_len": 1, "num_kv_heads": 1, "max_context_len": 0},
    "sampling": {"top_k": 0},
}
_NOT_POINT = ("num_bytes", "num_gpus")
_MAY_BE_ZERO = ("context_len", "max_context_len", "num_bytes")
_DEFAULT_DTYPE = "bf16"


@dataclass(frozen=True, slots=True)
class OpRow:
    """One operation of a table. num_bytes, num_gpus: of a collective, else 0; its point has no sizes then."""

    point: OpPoint
    num_bytes: float = 0.0
    num_gpus: int = 0


class RowError(SimllmError):
    """A row cannot be read; `problems` has one phrase for each thing wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


def parse_row(cells: Mapping[str, str]) -> OpRow:
    """Returns the operation of a row; columns that it does not need are not looked at.

    Raises: RowError with everything that is wrong: an unknown op or dtype, a missing or malformed size.
    """
    op = cells.get("op", "").strip()
    if op not in NEEDED:
        raise RowError([_unknown("op", op, tuple(NEEDED))])
    problems: list[str] = []
    dtype = cells.get("dtype", "").strip() or _DEFAULT_DTYPE
    if dtype not in DTYPE_BYTES:
        problems.append(_unknown("dtype", dtype, tuple(DTYPE_BYTES)))
    sizes = _sizes(op, cells, problems)
    if not problems:
        problems += _impossible(sizes)
    if problems:
        raise RowError(problems)
    of_point: dict[str, Any] = {name: sizes[name] for name in sizes if name not in _NOT_POINT}
    point = OpPoint(op, "", dtype, **of_point)
    return OpRow(point, float(sizes.get("num_bytes", 0)), int(sizes.get("num_gpus", 0)))


def _sizes(op: str, cells: Mapping[str, str], problems: list[str]) -> dict[str, int]:
    """Returns the sizes that an op takes, and adds to `problems` those that are missing or malformed."""
    found: dict[str, int] = {}
    optional = OPTIONAL.get(op, {})
    for name in (*NEEDED[op], *optional):
        text = (cells.get(name) or "").strip()
        if text:
            least = 0 if name in _MAY_BE_ZERO else 1
            if (value := _number(text, least)) is None:
                problems.append(f"{name} must be a whole number of at least {least}, got {text!r}")
            else:
                found[name] = value
        elif name in optional:
            found[name] = optional[name]
        else:
            problems.append(f"{op} needs {name}")
    return found


def _number(text: str, least: int) -> int | None:
    """Returns a whole number of at least `least`; 4096.0 and 1e6 are such, as spreadsheets write them."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value >= least and value.is_integer() else None


def _impossible(sizes: Mapping[str, int]) -> list[str]:
    """Returns what contradicts itself among sizes that are well-formed each."""
    problems = []
    if "num_kv_heads" in sizes and sizes["num_q_heads"] % sizes["num_kv_heads"]:
        heads, kv_heads = sizes["num_q_heads"], sizes["num_kv_heads"]
        problems.append(f"num_q_heads {heads} is no multiple of num_kv_heads {kv_heads}")
    if sizes.get("top_k", 0) > sizes.get("num_experts", sizes.get("n", 0)):
        problems.append(f"top_k {sizes['top_k']} is more than there are to choose from")
    return problems


def _unknown(column: str, value: str, choices: tuple[str, ...]) -> str:
    nearest = nearest_choice(value, choices)
    hint = f"one of {', '.join(choices)}" if nearest is None else f"did you mean {nearest!r}?"
    return f"{column} {value!r} is unknown; {hint}"
