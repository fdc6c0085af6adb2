"""Times whole transformer layers in one CUDA graph: `python -m simllm.benchmarks.layer_chain layers.parquet`.

Every layer of the chain has weights and a KV cache of its own, so that they come cold from HBM as in a model,
and its kernels follow each other as an engine launches them: add + norm, qkv, (norms of q and k,) RoPE, write
to the cache, attention, o, add + norm, gate and up, SiLU-mul, down. Then each kind of kernel runs alone, over
the same weights of all layers, so that the chain's time can be compared with the sum of its parts.

Every kernel reads what the one before has just written, so L2 holds of it what it would in a model. Random
weights are harmless: the norms keep all numbers finite.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as functional

from simllm.calibrate.buffers import Pools
from simllm.calibrate.timer import SUSTAINED, Effort, measure
from simllm.kernels import gemm, gemm_split_k, norm
from simllm.kernels.attention_decode import decode_attention
from simllm.kernels.attention_prefill import Chunks, prefill_attention
from simllm.kernels.elementwise import rope_, rope_table, silu_mul
from simllm.units import GIB, US

Launch = Callable[[], object]
State = dict[str, torch.Tensor]
Part = Callable[[State], None]
BLOCK_SIZE = 64
MAX_POSITION = 32768
BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)
CONTEXTS = (512, 4096)
CHUNKS = (512, 1024, 2048, 4096, 8192)
POOL_BYTES = 24 * GIB  # of bf16: the weights and caches of a chain
SPLIT_ROWS = 64  # up to which our products split k
# A chain of 8 B's layers is warmed up until the power limit has set the clock.
CHAIN = Effort(warm_up_s=0.25, target_s=0.1, max_replays=200)
PART = Effort(warm_up_s=0.05, target_s=0.03, max_replays=80)


@dataclass(frozen=True, slots=True)
class Layer:
    """The sizes of one layer on one GPU. num_layers: of the chain."""

    model: str
    hidden: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int
    has_qk_norm: bool
    num_layers: int


# Source: the models' config.json, as shipped in hwmodels/models.
LAYERS = (
    Layer("llama-3.1-8b", 4096, 32, 8, 128, 14336, False, 8),
    Layer("qwen3-32b", 5120, 64, 8, 128, 25600, True, 6),
)


@dataclass(frozen=True, slots=True)
class Step:
    """The tokens of one step: `batch` requests of `query_len` tokens each after or within `context_len`."""

    phase: str
    batch: int
    query_len: int
    context_len: int

    @property
    def num_tokens(self) -> int:
        """Rows of every product."""
        return self.batch * self.query_len


class Chain:
    """The kernels of all layers of one step. kernels: `vllm` (cuBLAS, cuDNN) or `triton` (all ours).

    A part reads and writes named tensors of a state; all layers share the state as a model's do.
    """

    def __init__(self, layer: Layer, step: Step, kernels: str, pools: Pools) -> None:
        self.layer, self.step, self.kernels = layer, step, kernels
        self._take = partial(pools.take, "bf16")
        tokens = step.num_tokens
        self._start = {"x": self._take(tokens, layer.hidden), "residual": self._take(tokens, layer.hidden)}
        self._positions = torch.randint(0, MAX_POSITION, (tokens,), device="cuda")
        self._table = rope_table(MAX_POSITION, layer.head_dim).cuda()
        self.layers = [self._one_layer() for _ in range(layer.num_layers)]

    def whole(self) -> list[Launch]:
        """Returns one launch that runs every layer, part after part."""

        def run() -> None:
            state = dict(self._start)
            for parts in self.layers:
                for part in parts.values():
                    part(state)

        return [run]

    def parts(self) -> Iterator[tuple[str, list[Launch]]]:
        """Yields each part with its launches, one a layer, on the tensors that a run leaves behind."""
        state = dict(self._start)
        for part in self.layers[0].values():
            part(state)
        for name in self.layers[0]:
            yield name, [partial(parts[name], dict(state)) for parts in self.layers]

    def _one_layer(self) -> dict[str, Part]:
        layer = self.layer
        q_width, kv_width = layer.num_q_heads * layer.head_dim, layer.num_kv_heads * layer.head_dim
        return {
            "norm": self._norm(),
            "qkv": self._product("h", "qkv", q_width + 2 * kv_width, layer.hidden),
            **({"qk_norm": self._qk_norm()} if layer.has_qk_norm else {}),
            "rope": self._rope,
            **self._attention(),
            "o": self._product("attended", "x", layer.hidden, q_width),
            "norm_2": self._norm(),
            "gate_up": self._product("h", "gate_up", 2 * layer.intermediate, layer.hidden),
            "silu_mul": _silu_mul,
            "down": self._product("activated", "x", layer.hidden, layer.intermediate),
        }

    def _norm(self) -> Part:
        weight = self._take(self.layer.hidden)

        def run(state: State) -> None:
            state["h"], state["residual"] = norm.rms_norm(state["x"], weight, residual=state["residual"])

        return run

    def _product(self, source: str, target: str, n: int, k: int) -> Part:
        weight = self._take(n, k)
        is_few = self.step.num_tokens <= SPLIT_ROWS

        def run(state: State) -> None:
            a = state[source].view(-1, k)
            if self.kernels == "vllm":
                state[target] = torch.mm(a, weight.t())
            else:
                state[target] = (gemm_split_k.matmul_split_k if is_few else gemm.matmul)(a, weight)

        return run

    def _heads(self, state: State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns q, k and v (tokens, heads, head_dim), one behind the other in the product's output.

        The rows are cut as if the product had written them so: the same bytes, read once each.
        """
        layer, tokens = self.layer, self.step.num_tokens
        counts = (layer.num_q_heads, layer.num_kv_heads, layer.num_kv_heads)
        sizes = [tokens * count * layer.head_dim for count in counts]
        q, k, v = (
            piece.view(tokens, count, layer.head_dim)
            for piece, count in zip(state["qkv"].view(-1).split(sizes), counts, strict=True)
        )
        return q, k, v

    def _qk_norm(self) -> Part:
        """Both norms are launches of their own, over heads as rows."""
        weight = self._take(self.layer.head_dim)

        def run(state: State) -> None:
            for heads in self._heads(state)[:2]:
                norm.rms_norm(heads.view(-1, self.layer.head_dim), weight)

        return run

    def _rope(self, state: State) -> None:
        q, k, _ = self._heads(state)
        rope_(q, k, self._positions, self._table)

    def _attention(self) -> dict[str, Part]:
        """The write of new keys and values to their slots, and attention over the cache."""
        layer, step = self.layer, self.step
        length = step.context_len if step.phase == "decode" else step.query_len
        per_request = -(-length // BLOCK_SIZE)
        num_blocks = step.batch * per_request
        shape = (num_blocks, BLOCK_SIZE, layer.num_kv_heads, layer.head_dim)
        k_cache, v_cache = self._take(*shape), self._take(*shape)
        slots = torch.randperm(num_blocks * BLOCK_SIZE, device="cuda")[: step.num_tokens]
        table = torch.randperm(num_blocks, device="cuda").int().view(step.batch, per_request)
        lens = torch.full((step.batch,), length, dtype=torch.int32, device="cuda")
        chunks = Chunks.of([length], [length], "cuda", table)

        def write(state: State) -> None:
            for cache, rows in zip((k_cache, v_cache), self._heads(state)[1:], strict=True):
                cache.view(-1, *shape[2:]).index_copy_(0, slots, rows)

        def attend(state: State) -> None:
            q, k, v = self._heads(state)
            if step.phase == "decode":
                out = decode_attention(q[:, None], k_cache, v_cache, table, lens, max_context_len=length)
            elif self.kernels == "triton":
                out = prefill_attention(q, k_cache, v_cache, chunks)
            else:
                out = _cudnn(q, k, v)
            state["attended"] = out.reshape(step.num_tokens, -1)

        return {"kv_write": write, "attention": attend}


def _silu_mul(state: State) -> None:
    state["activated"] = silu_mul(state["gate_up"])


def _cudnn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (rows.transpose(0, 1)[None] for rows in (q, k, v))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1)


def steps() -> Iterator[Step]:
    """Yields decode batches over contexts, then single prefill chunks."""
    for context_len in CONTEXTS:
        for batch in BATCHES:
            yield Step("decode", batch, 1, context_len)
    for query_len in CHUNKS:
        yield Step("prefill", 1, query_len, 0)


def measure_step(layer: Layer, step: Step, kernels: str, pools: Pools) -> dict[str, Any]:
    """Returns a row: microseconds per layer of the whole chain, under sustained load, and of every part."""
    chain = Chain(layer, step, kernels, pools)
    whole = measure(chain.whole(), CHAIN)
    row = {
        **asdict(layer), **asdict(step), "kernels": kernels,
        "layer_us": whole.time_s / US / layer.num_layers,
        "spread": whole.spread, "clock_mhz": whole.clock_mhz, "power_w": whole.power_w,
    }  # fmt: skip
    if step.phase == "prefill":
        row["layer_sustained_us"] = measure(chain.whole(), SUSTAINED).time_s / US / layer.num_layers
    for name, launches in chain.parts():
        row[f"{name}_us"] = measure(launches, PART).time_s / US
    return row


def main() -> None:
    """Measures every layer, step and set of kernels; writes all rows so far after each."""
    path, limit_s = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else float("inf")
    pools, rows = Pools(POOL_BYTES), []
    started_at = time.monotonic()
    for kernels in ("vllm", "triton"):
        for layer in LAYERS:
            for step in steps():
                if time.monotonic() - started_at > limit_s:
                    return
                rows.append(measure_step(layer, step, kernels, pools))
                pd.DataFrame(rows).to_parquet(path)
                parts_us = sum(v for k, v in rows[-1].items() if k.endswith("_us") and "layer" not in k)
                shown = f"{layer.model} {step.phase} {step.batch}x{step.query_len} after {step.context_len}"
                print(
                    f"{kernels} {shown}: {rows[-1]['layer_us']:.1f} us, parts {parts_us:.1f} us", flush=True
                )


if __name__ == "__main__":
    main()
