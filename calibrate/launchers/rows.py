"""What stands between products: norms, activations, softmax, rotary positions, quantising, sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as functional

from ...hwmodels.op_point import OpPoint
from ...kernels import norm, softmax
from ...kernels.elementwise import rope_, rope_table, silu_mul
from ...kernels.quantize import quantize_per_group, quantize_per_token
from ...kernels.sampling import sample
from ..buffers import DTYPES, Pools
from .maker import Launch, Maker

NUM_LAUNCHES = 20
MAX_POSITION = 32768


def _norm(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """The residual is added first, by ours in the same kernel."""
    rows = (point.m, point.n)
    x, residual = (pools.take(point.dtype, *rows) for _ in range(2))
    weight, bias = (pools.take(point.dtype, point.n) for _ in range(2))

    def torch_rms_norm() -> object:
        total = x + residual
        return functional.rms_norm(total, rows[1:], weight), total

    def torch_layer_norm() -> object:
        total = x + residual
        return functional.layer_norm(total, rows[1:], weight, bias), total

    launches: dict[tuple[str, str], Launch] = {
        ("rms_norm", "triton"): lambda: norm.rms_norm(x, weight, residual=residual),
        ("layer_norm", "triton"): lambda: norm.layer_norm(x, weight, bias, residual=residual),
        ("rms_norm", "torch"): torch_rms_norm,
        ("layer_norm", "torch"): torch_layer_norm,
    }
    return _repeated(launches[point.op, point.implementation])


def _repeated(launch: Launch) -> list[list[Launch]]:
    return [[launch] * NUM_LAUNCHES]


def _silu_mul(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    gate_up = pools.take(point.dtype, point.m, 2 * point.n)
    if point.implementation == "triton":
        return _repeated(partial(silu_mul, gate_up))
    return _repeated(lambda: functional.silu(gate_up[:, : point.n]) * gate_up[:, point.n :])


def _softmax(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    x = pools.take(point.dtype, point.m, point.n)
    return _repeated(partial(softmax.softmax if point.implementation == "triton" else torch_softmax, x))


def torch_softmax(x: torch.Tensor) -> torch.Tensor:
    """Returns the softmax of every row by torch."""
    return x.softmax(-1)


def _quantize(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    x = pools.take(point.activation_dtype, point.m, point.n)
    encode: Callable[..., object] = (
        quantize_per_token if point.op == "quantize_per_token" else quantize_per_group
    )
    return _repeated(partial(encode, x, DTYPES[point.dtype]))


def _rope(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """Random positions, as those of a decode batch; a rotation keeps lengths, so nothing grows."""
    q, k = (
        pools.take(point.dtype, point.m, heads, point.head_dim).clone()
        for heads in (point.num_q_heads, point.num_kv_heads)
    )
    table = rope_table(MAX_POSITION, point.head_dim).to(pools.device)
    positions = torch.randint(0, MAX_POSITION, (point.m,), device=pools.device)
    return _repeated(partial(rope_, q, k, positions, table))


def _sampling(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """Temperature 1, all tokens or the top k; torch's way is that of engines: softmax, noise, argmax."""
    logits = pools.take(point.dtype, point.m, point.n)
    temperatures, top_ps = (torch.ones(point.m, device=pools.device) for _ in range(2))
    top_ks = torch.full((point.m,), point.top_k, dtype=torch.int32, device=pools.device)
    if point.implementation == "triton":
        return _repeated(partial(sample, logits, temperatures, top_ks, top_ps, seed=1))

    def draw() -> torch.Tensor:
        probabilities = (logits.float() / temperatures[:, None]).softmax(-1)
        noise = torch.empty_like(probabilities).exponential_()
        return probabilities.div_(noise).argmax(-1)

    return _repeated(draw)


MAKERS: Mapping[tuple[str, str], Maker] = {
    **{
        (op, implementation): maker
        for op, maker in (
            ("rms_norm", _norm),
            ("layer_norm", _norm),
            ("silu_mul", _silu_mul),
            ("softmax", _softmax),
            ("sampling", _sampling),
        )
        for implementation in ("triton", "torch")
    },
    ("quantize_per_token", "triton"): _quantize,
    ("quantize_per_group", "triton"): _quantize,
    ("rope", "triton"): _rope,
}
