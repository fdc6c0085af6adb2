"""What one rank launches in a step, term by term: the list of ops behind every cost.

Only linear and elementwise work is listed here; attention over the KV cache depends on every context and
is priced by `attention_cost`. Under TP a rank's matrices are slices; all ranks do the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import ops
from .compression import SCORE_BYTES
from .eager_layers import unfused_launches
from .expert_ranks import EVEN, ExpertRanks, ExpertRouting
from .model import MlaSpec, ModelSpec
from .ops import Launches, Op
from .parallel import ParallelSpec, RankShapes, rank_shapes
from .precision import Precision
from .stages import WHOLE, Ends


class LayerOps:
    """The launches of one rank of a model, as functions of token counts."""

    def __init__(
        self,
        model: ModelSpec,
        parallel: ParallelSpec,
        precision: Precision,
        *,
        is_eager: bool = False,
        ends: Ends = WHOLE,
        routing: ExpertRouting = EVEN,
    ) -> None:
        """is_eager: the model is written in plain PyTorch, without fused kernels. ends: of a pipeline stage.
        routing: which experts tokens choose.

        Raises: SimllmError if the model cannot be cut that way.
        """
        self.model = model
        self.ends = ends
        self._ranks = None if model.moe is None else ExpertRanks(model.moe, parallel.ep, routing)
        self._is_eager = is_eager
        self.precision = precision
        self.shapes: RankShapes = rank_shapes(model, parallel)
        self._flops_per_element = precision.kv_widen_flops + precision.kv_compression.scale_flops
        self._kv_bytes = precision.kv_bytes_per_token(model, tp=parallel.tp) / model.num_layers

    def linear(self, num_tokens: int, num_normed: int | None = None) -> Mapping[str, list[Launches]]:
        """Returns, by cost term, everything in the layers that depends on the number of tokens only.

        num_normed: tokens whose norms this rank computes, None for all.
        """
        model = self.model
        return {
            "attention_gemm": self._repeat(model.num_layers, self._attention_gemms(num_tokens)),
            "mlp_gemm": self._repeat(
                model.num_dense_layers, self._mlp_gemms(num_tokens, self.shapes.intermediate_size)
            ),
            "moe": self._repeat(model.num_moe_layers, self._moe(num_tokens)),
            "elementwise": self._elementwise(num_tokens, num_tokens if num_normed is None else num_normed)
            + self._quantize(num_tokens),
        }

    def head(self, num_sampled: int) -> Mapping[str, list[Launches]]:
        """Returns the lm_head on the sampled rows, never quantised, and the sampler on one rank."""
        dtype, model = self.precision.activation, self.model
        logits = ops.gemm_candidates(
            num_sampled, self.shapes.vocab_size, model.hidden_size, dtype, kind="lm_head"
        )
        sampling = ops.sampling(num_sampled, model.vocab_size, dtype)
        return {"lm_head": [Launches(1, logits)], "sampling": [Launches(1, (sampling,))]}

    def prefill_shape(self) -> ops.AttentionShape:
        """Returns the attention heads of prefill chunks."""
        model, shapes, dtype = self.model, self.shapes, self.precision.activation
        if (mla := model.mla) is not None:
            return ops.mla_expanded(
                shapes.num_q_heads,
                qk_nope_head_dim=mla.qk_nope_head_dim,
                qk_rope_head_dim=mla.qk_rope_head_dim,
                v_head_dim=mla.v_head_dim,
                dtype=dtype,
            )
        widened = 2 * shapes.num_kv_heads * model.head_dim * self._flops_per_element
        return ops.AttentionShape(
            shapes.num_q_heads,
            shapes.num_kv_heads,
            model.head_dim,
            model.head_dim,
            dtype,
            self._kv_bytes,
            widened,
        )

    def decode_shape(self) -> ops.AttentionShape:
        """Returns the attention heads of decodes; they note scores where these choose what stays."""
        if (mla := self.model.mla) is None:
            shape = self.prefill_shape()
            if not self.precision.kv_compression.keeps_scores:
                return shape
            scores = SCORE_BYTES * self.shapes.num_kv_heads
            return replace(shape, kv_bytes_per_token=shape.kv_bytes_per_token + scores)
        return ops.mla_absorbed(
            self.shapes.num_q_heads,
            kv_lora_rank=mla.kv_lora_rank,
            qk_rope_head_dim=mla.qk_rope_head_dim,
            dtype=self.precision.activation,
            kv_bytes_per_token=self._kv_bytes,
            widen_flops_per_token=mla.latent_dim * self._flops_per_element,
        )

    @property
    def decode_window(self) -> int | None:
        """Tokens that a decode attends to at most, None for all: the model's window, or the cache's."""
        windows = (self.model.sliding_window, self.precision.kv_compression.window)
        return min((window for window in windows if window is not None), default=None)

    def latent_expansion(self, num_tokens: int) -> Op | None:
        """Returns the expansion of cached latents that a prefill chunk attends to, None without MLA."""
        if (mla := self.model.mla) is None:
            return None
        features = self.shapes.num_q_heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        dtype = self.precision.activation
        return ops.gemm(num_tokens, features, mla.kv_lora_rank, dtype, kind="mla_up_projection")

    def _gemm(self, num_tokens: int, out_features: int, in_features: int) -> Launches:
        precision = self.precision
        return Launches(
            1,
            ops.gemm_candidates(
                num_tokens,
                out_features,
                in_features,
                precision.compute,
                weight_dtype=precision.weight,
                weight_scale_bytes=precision.weight_scale_bytes,
                out_dtype=precision.activation,
            ),
        )

    def _attention_gemms(self, num_tokens: int) -> list[Launches]:
        model, shapes = self.model, self.shapes
        if model.mla is not None:
            return self._mla_gemms(num_tokens, model.mla)
        qkv = (shapes.num_q_heads + 2 * shapes.num_kv_heads) * model.head_dim
        return [
            self._gemm(num_tokens, qkv, model.hidden_size),
            self._gemm(num_tokens, model.hidden_size, shapes.num_q_heads * model.head_dim),
        ]

    def _mla_gemms(self, num_tokens: int, mla: MlaSpec) -> list[Launches]:
        """Returns the projections down (replicated on every rank), up, and out.

        The up-projection of K and V stands for both phases: decoding multiplies the query and the output
        with the same matrices, at the same FLOPs per token.
        """
        hidden, num_heads = self.model.hidden_size, self.shapes.num_q_heads
        query_features = num_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        kv_features = num_heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        down = (mla.q_lora_rank or 0) + mla.latent_dim
        return [
            self._gemm(num_tokens, down, hidden),
            self._gemm(num_tokens, query_features, mla.q_lora_rank or hidden),
            self._gemm(num_tokens, kv_features, mla.kv_lora_rank),
            self._gemm(num_tokens, hidden, num_heads * mla.v_head_dim),
        ]

    def _mlp_gemms(self, num_tokens: int, intermediate_size: int) -> list[Launches]:
        hidden, width = self.model.hidden_size, 2 if self.model.is_gated else 1
        return [
            self._gemm(num_tokens, width * intermediate_size, hidden),
            self._gemm(num_tokens, hidden, intermediate_size),
        ]

    def _moe(self, num_tokens: int) -> list[Launches]:
        moe, ranks, shapes, precision = self.model.moe, self._ranks, self.shapes, self.precision
        if moe is None or ranks is None:
            return []
        picks = ranks.picks(num_tokens) if ranks.num_ranks > 1 else None
        hidden, width = self.model.hidden_size, shapes.expert_intermediate_size
        grouped = [
            ops.grouped_gemm_candidates(
                num_tokens, n, k, precision.compute,
                num_experts=ranks.num_held, top_k=moe.top_k, weight_dtype=precision.weight,
                weight_scale_bytes=precision.weight_scale_bytes, picks=picks, skew=ranks.skew,
            )
            for n, k in ((2 * width, hidden), (hidden, width))
        ]  # fmt: skip
        launches = [
            Launches(1, ops.gemm_candidates(num_tokens, moe.num_experts, hidden, precision.activation)),
            Launches(1, (ops.route(num_tokens, moe.num_experts, moe.top_k),)),
            Launches(1, grouped[0]),
            Launches(1, (ops.silu_mul(num_tokens * moe.top_k, width, precision.activation),)),
            Launches(1, grouped[1]),
            Launches(1, (ops.combine_experts(num_tokens, moe.top_k, hidden, precision.activation),)),
        ]
        if ranks.num_ranks > 1 or ops.needs_alignment(num_tokens, moe.num_experts, moe.top_k):
            launches.append(Launches(1, (ops.align_experts(num_tokens, moe.top_k),)))
        if shapes.shared_intermediate_size:
            shared = shapes.shared_intermediate_size
            launches += self._mlp_gemms(num_tokens, shared)
            launches.append(Launches(1, (ops.silu_mul(num_tokens, shared, precision.activation),)))
        return launches

    def _elementwise(self, num_tokens: int, num_normed: int) -> list[Launches]:
        """Returns norms, positions, KV writes and activations of all layers, embedding and last norm."""
        model, shapes, dtype = self.model, self.shapes, self.precision.activation
        norm = ops.rms_norm if model.is_gated else ops.layer_norm
        activate = ops.silu_mul if model.is_gated else ops.activation
        num_heads = shapes.num_q_heads + shapes.num_kv_heads
        kv_elements = 2 * shapes.num_kv_heads * model.head_dim if model.mla is None else model.mla.latent_dim
        num_norms = (1 if model.has_parallel_attention else 2) * model.num_layers + self.ends.has_head
        launches = [
            Launches(int(self.ends.has_embedding), (ops.embedding(num_tokens, model.hidden_size, dtype),)),
            Launches(num_norms, (norm(num_normed, model.hidden_size, dtype),)),
            Launches(model.num_layers, (ops.kv_write(num_tokens, kv_elements, dtype, self._kv_bytes),)),
            Launches(model.num_dense_layers, (activate(num_tokens, shapes.intermediate_size, dtype),)),
        ]
        if not model.num_position_embeddings:
            rope_dim = model.head_dim if model.mla is None else model.mla.qk_rope_head_dim
            launches.append(Launches(model.num_layers, (ops.rope(num_tokens, num_heads, rope_dim, dtype),)))
        if self._is_eager:
            launches += unfused_launches(model, shapes, num_tokens, dtype)
        return launches

    def _quantize(self, num_tokens: int) -> list[Launches]:
        """Returns what narrows activations: every product's input, the queries of an fp8 cache.

        Source: vLLM, dynamic per-tensor scales take a kernel for the maximum and one to scale
        (csrc/quantization, dynamic_scaled_fp8_quant); FlashAttention-3 over an fp8 cache takes fp8 queries,
        whose scale is fixed (vllm/v1/attention/backends/flash_attn.py).
        """
        model, shapes, precision = self.model, self.shapes, self.precision
        wide, narrow = precision.activation, precision.compute
        launches: list[Launches] = []
        if precision.multiplies_kv_in_fp8 and model.mla is None:
            query = ops.quantize_scaled(num_tokens, shapes.num_q_heads * model.head_dim, wide, precision.kv)
            launches.append(Launches(model.num_layers, (query,)))
        if narrow == wide:
            return launches
        inner = shapes.num_q_heads * (model.head_dim if model.mla is None else model.mla.v_head_dim)
        layers, dense = model.num_layers, model.num_dense_layers
        experts = (0, 0) if model.moe is None else (model.moe.top_k, shapes.expert_intermediate_size)
        inputs = (
            (layers, model.hidden_size),
            (layers, inner),
            (dense, model.hidden_size),
            (dense, shapes.intermediate_size),
            (model.num_moe_layers, model.hidden_size),
            (model.num_moe_layers, experts[0] * experts[1]),
        )
        for count, width in inputs:
            if count:
                launches.append(Launches(count, (ops.quantize_max(num_tokens, width, wide, narrow),)))
                launches.append(Launches(count, (ops.quantize_scaled(num_tokens, width, wide, narrow),)))
        return launches

    @staticmethod
    def _repeat(count: int, launches: list[Launches]) -> list[Launches]:
        return [Launches(count * launch.repeats, launch.alternatives) for launch in launches] if count else []
