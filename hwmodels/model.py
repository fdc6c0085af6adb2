"""What a model is to the hardware: its shapes, and the parameters and bytes that follow from them.

Shapes come from a Hugging Face config.json (see `model_config`); FLOPs and traffic belong to `ops`.
Counts are exact: every matrix, bias, norm and table of the published checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SimllmError, nearest_choice
from ..units import DTYPE_BYTES

FP8_DS_MLA = "fp8_ds_mla"
"""The KV-cache dtype that keeps an MLA latent in fp8 and its rotary part in bf16."""

_FP8_DS_MLA_TILE = 128  # latent elements that share one fp32 scale
# Source: FlashMLA README, "FP8 KV cache format", https://github.com/deepseek-ai/FlashMLA


@dataclass(frozen=True, slots=True)
class MlaSpec:
    """Multi-head latent attention (DeepSeek-V2/V3): ranks and head dimensions [elements]."""

    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    @property
    def latent_dim(self) -> int:
        """Elements that one token leaves in the KV cache of one layer, for all heads together."""
        return self.kv_lora_rank + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True)
class MoeSpec:
    """Mixture of experts: `num_experts` routed ones, `top_k` per token, shared ones on every token.

    first_dense_layers: leading layers with a dense MLP. intermediate_size: of one routed expert.
    shared_intermediate_size: of all shared experts together, 0 without.
    has_router_bias: one score correction per expert (DeepSeek-V3's load balancing).
    """

    num_experts: int
    top_k: int
    intermediate_size: int
    shared_intermediate_size: int = 0
    first_dense_layers: int = 0
    has_router_bias: bool = False


@dataclass(frozen=True, slots=True)
class VisionSpec:
    """The vision tower in front of a multimodal model, its projector ("merger") included.

    merge: side of the square of patches that become one token. window_size [px], None for full attention
    everywhere; full_attention_layers: layers that see the whole image all the same.
    out_hidden_size: width of the language model's embeddings.
    merger_hidden_size: width between the merger's two matrices, 0 if it is a single matrix.
    num_mergers: 1 plus the extra outputs that feed early language layers (DeepStack).
    num_small_params: biases, norms, layer scales, class and position embeddings.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    patch_size: int
    is_gated: bool
    merge: int
    out_hidden_size: int
    temporal_patch_size: int = 1
    window_size: int | None = None
    full_attention_layers: tuple[int, ...] = ()
    merger_hidden_size: int = 0
    num_mergers: int = 1
    num_small_params: int = 0

    @property
    def num_params(self) -> int:
        """Parameters of patch embedding, layers and mergers."""
        pixels = 3 * self.temporal_patch_size * self.patch_size**2
        attention = 4 * self.hidden_size**2
        mlp = (3 if self.is_gated else 2) * self.hidden_size * self.intermediate_size
        layers = self.num_layers * (attention + mlp)
        return pixels * self.hidden_size + layers + self.num_merger_params + self.num_small_params

    @property
    def num_merger_params(self) -> int:
        """Matrices of all mergers: merge^2 patches in, one token of the language model out."""
        merged = self.merge**2 * self.hidden_size
        if not self.merger_hidden_size:
            return self.num_mergers * merged * self.out_hidden_size
        return self.num_mergers * self.merger_hidden_size * (merged + self.out_hidden_size)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only language model, by its shapes.

    head_dim: of queries and keys (MLA: nope + rope); not always hidden_size / num_q_heads.
    is_gated: SiLU-gated MLP of three matrices, else a plain one of two.
    sliding_window [tokens] of every layer, None where attention sees all.
    num_position_embeddings: rows of a learned position table, 0 with rotary or ALiBi positions.
    has_parallel_attention: attention and MLP read the same input, so a layer has one all-reduce, not two.
    has_*_bias and num_norm_params (all norms of the model) count the small tensors.
    """

    name: str
    architecture: str
    num_layers: int
    hidden_size: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_model_len: int
    is_gated: bool
    ties_embeddings: bool
    mla: MlaSpec | None = None
    moe: MoeSpec | None = None
    vision: VisionSpec | None = None
    sliding_window: int | None = None
    num_position_embeddings: int = 0
    has_parallel_attention: bool = False
    has_qkv_bias: bool = False
    has_output_bias: bool = False
    has_mlp_bias: bool = False
    num_norm_params: int = 0

    @property
    def has_moe(self) -> bool:
        """Whether any layer routes its tokens to experts."""
        return self.moe is not None

    @property
    def num_dense_layers(self) -> int:
        """Layers with one MLP for every token."""
        return self.num_layers if self.moe is None else self.moe.first_dense_layers

    @property
    def num_moe_layers(self) -> int:
        """Layers with routed experts."""
        return self.num_layers - self.num_dense_layers

    @property
    def num_embedding_params(self) -> int:
        """Token table and learned position table, if any."""
        return (self.vocab_size + self.num_position_embeddings) * self.hidden_size

    @property
    def num_lm_head_params(self) -> int:
        """The output matrix, 0 where it is the token table itself."""
        return 0 if self.ties_embeddings else self.vocab_size * self.hidden_size

    @property
    def num_attention_params(self) -> int:
        """Attention matrices and biases of one layer, norms left out."""
        hidden, heads = self.hidden_size, self.num_q_heads
        output_bias = hidden if self.has_output_bias else 0
        if self.mla is None:
            qkv_dim = (heads + 2 * self.num_kv_heads) * self.head_dim
            qkv_bias = qkv_dim if self.has_qkv_bias else 0
            return hidden * qkv_dim + qkv_bias + heads * self.head_dim * hidden + output_bias
        mla = self.mla
        query_rank = mla.q_lora_rank or 0
        query_down = hidden * query_rank
        query_up = (query_rank or hidden) * heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        kv_down = hidden * mla.latent_dim
        kv_up = mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        down_bias = query_rank + mla.latent_dim if self.has_qkv_bias else 0
        output = heads * mla.v_head_dim * hidden + output_bias
        return query_down + query_up + kv_down + kv_up + down_bias + output

    @property
    def num_dense_mlp_params(self) -> int:
        """Matrices and biases of one dense layer's MLP."""
        up_dim = (2 if self.is_gated else 1) * self.intermediate_size
        bias = up_dim + self.hidden_size if self.has_mlp_bias else 0
        return (up_dim + self.intermediate_size) * self.hidden_size + bias

    @property
    def num_expert_params(self) -> int:
        """One routed expert of one layer, 0 without experts."""
        return 0 if self.moe is None else 3 * self.hidden_size * self.moe.intermediate_size

    @property
    def num_shared_expert_params(self) -> int:
        """All shared experts of one MoE layer, 0 without."""
        return 0 if self.moe is None else 3 * self.hidden_size * self.moe.shared_intermediate_size

    @property
    def num_router_params(self) -> int:
        """The gate of one MoE layer, 0 without experts."""
        if self.moe is None:
            return 0
        return self.moe.num_experts * (self.hidden_size + (1 if self.moe.has_router_bias else 0))

    @property
    def num_params(self) -> int:
        """Parameters of the language model; the vision tower's are `vision.num_params`."""
        num_experts = 0 if self.moe is None else self.moe.num_experts
        moe_layer = (
            num_experts * self.num_expert_params + self.num_shared_expert_params + self.num_router_params
        )
        return (
            self.num_embedding_params
            + self.num_layers * self.num_attention_params
            + self.num_dense_layers * self.num_dense_mlp_params
            + self.num_moe_layers * moe_layer
            + self.num_norm_params
            + self.num_lm_head_params
        )

    @property
    def num_active_params(self) -> int:
        """Parameters that one token meets: all but the experts it is not routed to."""
        if self.moe is None:
            return self.num_params
        idle = self.moe.num_experts - self.moe.top_k
        return self.num_params - self.num_moe_layers * idle * self.num_expert_params

    @property
    def num_total_params(self) -> int:
        """Parameters of the whole checkpoint: language model and vision tower."""
        return self.num_params + (0 if self.vision is None else self.vision.num_params)

    def weight_bytes(self, dtype: str) -> float:
        """Returns the language model's weights [B], all stored as `dtype`.

        Raises: SimllmError for a dtype that is not in `units.DTYPE_BYTES`.
        """
        # SIMPLIFIED: no scales and no layers kept in bf16 beside quantised ones; effect: up to 2 % too few
        # bytes for fp8, up to 10 % for int4.
        return self.num_params * _element_bytes(dtype, self.name)

    def kv_bytes_per_token(self, dtype: str, *, tp: int = 1) -> float:
        """Returns the KV cache of one token, all layers, on one of `tp` tensor-parallel ranks [B].

        A rank holds at least one KV head, and the whole latent of MLA: both are replicated beyond.
        Raises: SimllmError for an unknown dtype, or `fp8_ds_mla` on a model without MLA.
        Source: vLLM, `ModelConfig.get_num_kv_heads`, https://github.com/vllm-project/vllm
        """
        if self.mla is not None:
            return self.num_layers * _latent_bytes(self.mla, dtype, self.name)
        num_kv_heads = max(1, self.num_kv_heads // tp)
        return 2 * num_kv_heads * self.head_dim * self.num_layers * _element_bytes(dtype, self.name)


def _latent_bytes(mla: MlaSpec, dtype: str, model: str) -> float:
    """Returns one token's latent in one layer [B]; V3 in fp8_ds_mla: 512 + 512/128*4 + 64*2 = 656."""
    if dtype != FP8_DS_MLA:
        return mla.latent_dim * _element_bytes(dtype, model)
    scales = mla.kv_lora_rank / _FP8_DS_MLA_TILE * DTYPE_BYTES["fp32"]
    return mla.kv_lora_rank * DTYPE_BYTES["fp8"] + scales + mla.qk_rope_head_dim * DTYPE_BYTES["bf16"]


def _element_bytes(dtype: str, model: str) -> float:
    if dtype == FP8_DS_MLA:
        raise SimllmError(f"{model}: {FP8_DS_MLA!r} is only a KV cache layout, of models with MLA")
    if dtype not in DTYPE_BYTES:
        nearest = nearest_choice(dtype, DTYPE_BYTES)
        hint = "" if nearest is None else f"; did you mean {nearest!r}?"
        raise SimllmError(f"{model}: unknown dtype {dtype!r}{hint}")
    return DTYPE_BYTES[dtype]
