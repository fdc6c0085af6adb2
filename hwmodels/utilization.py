"""Useful FLOPs and necessary bytes of a replica's work, from sums of counts: MFU and MBU.

All is linear in counts that a simulator can add up as it goes, so no step needs to be looked at again.
MFU: FLOPs that the model needs for its real tokens (no padding, no recomputed tiles) over the peak rate of
all GPUs (PaLM, arXiv 2204.02311, appendix B). MBU: weights once per step and the KV entries that attention
reads, over the peak bandwidth (databricks.com/blog/llm-inference-performance-engineering-best-practices).
"""

from __future__ import annotations

from ..units import DTYPE_BYTES
from . import ops
from .device import DeviceSpec
from .layers import LayerOps
from .model import ModelSpec
from .parallel import ParallelSpec
from .precision import Precision
from .step import StepShape
from .weights import rank_weight_bytes


class ModelWork:
    """What a model needs per token, per (query, key) pair, per sampled row and per step, on all GPUs."""

    def __init__(self, model: ModelSpec, precision: Precision) -> None:
        layers = LayerOps(model, ParallelSpec(), precision)
        launches = (launch for term in layers.linear(1).values() for launch in term)
        self.flops_per_token = sum(
            launch.repeats * launch.alternatives[0].flops
            for launch in launches
            if launch.alternatives[0].unit == "matrix"
        )
        self.flops_per_pair = model.num_layers * layers.prefill_shape().flops_per_pair
        self.flops_per_sampled = 2 * model.hidden_size * model.vocab_size
        self.kv_bytes_per_token = precision.kept_kv_bytes_per_token(model)
        self._window = model.sliding_window
        self._moe = model.moe
        self._dense_bytes, self._expert_bytes = _step_weight_bytes(model, precision)

    def flops(self, *, num_tokens: int, attention_pairs: int, num_sampled: int) -> float:
        """Returns the FLOPs of that many real tokens, (query, key) pairs and sampled rows.

        A decode of one token with context c (itself included) has c pairs; a chunk of q tokens after p has
        ``q * p + q * (q + 1) / 2``.
        """
        return (
            num_tokens * self.flops_per_token
            + attention_pairs * self.flops_per_pair
            + num_sampled * self.flops_per_sampled
        )

    def weight_bytes(self, num_tokens: int) -> float:
        """Returns the weights that one step of `num_tokens` reads; with experts, those expected to be hit."""
        if self._moe is None:
            return self._dense_bytes
        hit = ops.expected_distinct_experts(self._moe.num_experts, self._moe.top_k, num_tokens)
        return self._dense_bytes + hit * self._expert_bytes

    def kv_bytes(self, context_tokens: int) -> float:
        """Returns the KV entries that attention reads for contexts that sum to `context_tokens`."""
        return context_tokens * self.kv_bytes_per_token

    def flops_of(self, shape: StepShape) -> float:
        """Returns the useful FLOPs of one step, image tokens counted as the language model's tokens."""
        pairs = sum(
            chunk.count * ops.attention_pairs(chunk.query_len, chunk.context_len, self._window)
            for chunk in shape.chunks
        )
        for query_len, count, sum_context, _ in shape.decodes:
            seen = sum_context if self._window is None else min(sum_context, count * self._window)
            pairs += query_len * seen - count * query_len * (query_len - 1) // 2
        return self.flops(num_tokens=shape.num_tokens, attention_pairs=pairs, num_sampled=shape.num_sampled)

    def hbm_bytes_of(self, shape: StepShape) -> float:
        """Returns the necessary bytes of one step."""
        contexts = sum(chunk.count * (chunk.query_len + chunk.context_len) for chunk in shape.chunks)
        contexts += sum(group.sum_context for group in shape.decodes)
        return self.weight_bytes(shape.num_tokens) + self.kv_bytes(contexts)


def mfu(flops: float, seconds: float, *, device: DeviceSpec, dtype: str, num_gpus: int) -> float:
    """Returns model FLOPs utilisation, 0..1. dtype: what the linear layers multiply in."""
    return flops / (seconds * num_gpus * device.matrix_flops_per_s[dtype])


def mbu(hbm_bytes: float, seconds: float, *, device: DeviceSpec, num_gpus: int) -> float:
    """Returns model bandwidth utilisation, 0..1."""
    return hbm_bytes / (seconds * num_gpus * device.hbm_bytes_per_s)


def _step_weight_bytes(model: ModelSpec, precision: Precision) -> tuple[float, float]:
    """Returns what every step reads (no token table), and one expert of all layers more."""
    whole = rank_weight_bytes(
        model,
        ParallelSpec(),
        weight_dtype=precision.weight,
        activation_dtype=precision.activation,
        scale_bytes=precision.weight_scale_bytes,
    )
    gathered = 0 if model.ties_embeddings else model.num_embedding_params
    vision = 0 if model.vision is None else model.vision.num_params
    resident = whole - (gathered + vision) * DTYPE_BYTES[precision.activation]
    if model.moe is None:
        return resident, 0.0
    expert = model.num_moe_layers * model.num_expert_params * precision.weight_bytes
    return resident - model.moe.num_experts * expert, expert
