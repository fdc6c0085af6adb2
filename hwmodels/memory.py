"""How many KV blocks fit on a GPU, as a sum that a user can check line by line.

weights + activations + context + CUDA graphs + KV cache = memory x utilisation, on the fullest rank. A
measured number of blocks wins over the estimate; the rest of the sum then shows what is unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import InfeasibleError
from ..units import DTYPE_BYTES, GIB, MIB
from .cudagraph import CudaGraphSizes
from .device import DeviceSpec
from .model import ModelSpec
from .parallel import ParallelSpec, rank_shapes
from .precision import Precision
from .weights import stage_weight_bytes

# Memory that nvidia-smi counts and CUDA does not give out (page tables, ECC, firmware).
# Source: estimated; PyTorch reports 139.8 GiB on H200 (143,771 MiB), 79.1 on H100 and A100 80 GB (79.6, 80).
DRIVER_BYTES = 0.6 * GIB

# CUDA context, loaded kernels, cuBLAS workspaces of one process; NCCL's channels and vLLM's all-reduce
# buffers on top where ranks talk.
# Source: estimated; a PyTorch process takes 0.4-0.6 GiB before its first tensor on A100 and H100.
CONTEXT_BYTES = 0.6 * GIB
COLLECTIVE_BYTES = 0.1 * GIB

# One captured CUDA graph with its share of the graph pool.
# Source: estimated; vLLM logs 0.3-0.6 GiB for its 35 default sizes.
BYTES_PER_GRAPH = 14 * MIB

# Bytes per logit while sampling: fp32 copy, sorted values, int64 order, probabilities and their sums.
# Source: vLLM, Sampler with top-p, as the profiling run calls it: 4 + 4 + 8 + 4 + 4
SAMPLER_BYTES_PER_LOGIT = 24


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Where the memory of the fullest GPU goes [B].

    device_bytes: what CUDA gives out. block_bytes: one block of `block_size` tokens over the layers of this
    rank.
    """

    label: str
    device_bytes: float
    gpu_memory_utilization: float
    weight_bytes: float
    activation_bytes: float
    context_bytes: float
    cuda_graph_bytes: float
    block_size: int
    block_bytes: float
    num_gpu_blocks: int
    is_measured: bool

    @property
    def budget_bytes(self) -> float:
        """Memory that the engine may use: memory x utilisation."""
        return self.device_bytes * self.gpu_memory_utilization

    @property
    def kv_bytes(self) -> float:
        """Memory of all blocks, the null block included."""
        return self.num_gpu_blocks * self.block_bytes

    @property
    def unused_bytes(self) -> float:
        """What the sum leaves of the budget: less than a block, unless the number of blocks was measured."""
        return self.budget_bytes - self.fixed_bytes - self.kv_bytes

    @property
    def num_fitting_blocks(self) -> int:
        """Blocks that the rest of the budget holds, the null block included."""
        return max(0, int((self.budget_bytes - self.fixed_bytes) // self.block_bytes))

    @property
    def fixed_bytes(self) -> float:
        """Everything but the KV cache."""
        return self.weight_bytes + self.activation_bytes + self.context_bytes + self.cuda_graph_bytes

    def describe(self) -> str:
        """Returns the sum in lines of text, GiB in a column."""
        origin = "measured" if self.is_measured else "estimated"
        rows = (
            (self.weight_bytes, "weights"),
            (self.activation_bytes, "peak activations"),
            (self.context_bytes, "CUDA context and collectives"),
            (self.cuda_graph_bytes, "CUDA graphs"),
            (
                self.kv_bytes,
                f"KV cache: {self.num_gpu_blocks:,} blocks x {self.block_size} tokens ({origin})",
            ),
            (self.unused_bytes, "unused"),
        )
        total = f"{self.device_bytes / GIB:.2f} GiB x {self.gpu_memory_utilization:g}"
        lines = [f"{self.label}, per GPU", *(f"{size / GIB:10.2f} GiB  {name}" for size, name in rows)]
        return "\n".join([*lines, f"{self.budget_bytes / GIB:10.2f} GiB  = {total}"])


def memory_budget(
    model: ModelSpec,
    device: DeviceSpec,
    *,
    precision: Precision,
    parallel: ParallelSpec,
    block_size: int,
    gpu_memory_utilization: float,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    cuda_graph: CudaGraphSizes,
    max_image_tokens: int = 0,
    num_gpu_blocks: int | None = None,
    weight_bytes: float | None = None,
) -> MemoryBudget:
    """Returns the budget of one GPU, of the stage with the fewest blocks: all stages have as many.

    num_gpu_blocks: the number that an engine reported, taken over. weight_bytes: of the weights that one
    rank keeps in HBM, if not all of them.

    max_image_tokens: the largest image that the encoder is profiled with [tokens of the language model].
    Raises: InfeasibleError with the sum of bytes if not even two blocks (one is the null block) fit.
    """
    weights = stage_weight_bytes(
        model,
        parallel,
        weight_dtype=precision.weight,
        activation_dtype=precision.activation,
        scale_bytes=precision.weight_scale_bytes,
    )
    if weight_bytes is not None:
        weights = (weight_bytes,)
    layer_block_bytes = (
        block_size * precision.kept_kv_bytes_per_token(model, tp=parallel.tp) / model.num_layers
    )
    empty = MemoryBudget(
        label=f"{model.name} on {device.name}",
        device_bytes=device.hbm_bytes - DRIVER_BYTES,
        gpu_memory_utilization=gpu_memory_utilization,
        weight_bytes=0.0,
        activation_bytes=_layer_activation_bytes(model, parallel, precision, max_num_batched_tokens),
        context_bytes=CONTEXT_BYTES + (COLLECTIVE_BYTES if parallel.num_gpus > 1 else 0.0),
        cuda_graph_bytes=len(cuda_graph.sizes) * BYTES_PER_GRAPH,
        block_size=block_size,
        block_bytes=0.0,
        num_gpu_blocks=0,
        is_measured=num_gpu_blocks is not None,
    )
    # What the first stage and the last one need beside their layers.
    first_bytes = _vision_activation_bytes(model, precision, max_image_tokens)
    last_bytes = _sampler_bytes(model, precision, max_num_seqs)
    num_stages = len(weights)
    stages = []
    for stage, num_layers in enumerate(rank_shapes(model, parallel).stage_layers):
        needed = [empty.activation_bytes]
        needed += [first_bytes] if stage == 0 else []
        needed += [last_bytes] if stage == num_stages - 1 else []
        stages.append(
            replace(
                empty,
                label=empty.label if num_stages == 1 else f"{empty.label}, stage {stage + 1} of {num_stages}",
                weight_bytes=weights[stage],
                activation_bytes=max(needed),
                block_bytes=num_layers * layer_block_bytes,
            )
        )
    budget = min(stages, key=lambda stage: stage.num_fitting_blocks)
    num_blocks = budget.num_fitting_blocks if num_gpu_blocks is None else num_gpu_blocks
    budget = replace(budget, num_gpu_blocks=num_blocks)
    if budget.num_gpu_blocks < 2:
        raise InfeasibleError(_shortfall(budget))
    return budget


def _shortfall(budget: MemoryBudget) -> str:
    """Returns the sum of bytes as one line."""
    parts = (
        ("weights", budget.weight_bytes),
        ("activations", budget.activation_bytes),
        ("context", budget.context_bytes),
        ("CUDA graphs", budget.cuda_graph_bytes),
    )
    terms = " + ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
    return (
        f"{budget.label} does not fit: {terms} = {budget.fixed_bytes / GIB:.1f} GiB per GPU leave no "
        f"room for KV blocks in {budget.device_bytes / GIB:.1f} GiB x {budget.gpu_memory_utilization:g} = "
        f"{budget.budget_bytes / GIB:.1f} GiB"
    )


def _layer_activation_bytes(
    model: ModelSpec, parallel: ParallelSpec, precision: Precision, num_tokens: int
) -> float:
    """Returns hidden state, residual, and the widest tensors that are alive together in a layer.

    SIMPLIFIED: no fragmentation and no workspaces of single kernels; effect: some 0.1 GiB too little.
    """
    shapes, hidden = rank_shapes(model, parallel), model.hidden_size
    attention = (2 * shapes.num_q_heads + 2 * shapes.num_kv_heads) * model.head_dim
    mlp = (3 if model.is_gated else 2) * shapes.intermediate_size
    moe = 0 if model.moe is None else model.moe.top_k * (3 * shapes.expert_intermediate_size + hidden)
    width = 2 * hidden + max(attention, mlp if model.num_dense_layers else 0, moe)
    return num_tokens * width * DTYPE_BYTES[precision.activation]


def _sampler_bytes(model: ModelSpec, precision: Precision, num_sampled: int) -> float:
    """Returns the logits of `num_sampled` rows and what sampling makes of them."""
    return num_sampled * model.vocab_size * (DTYPE_BYTES[precision.activation] + SAMPLER_BYTES_PER_LOGIT)


def _vision_activation_bytes(model: ModelSpec, precision: Precision, num_image_tokens: int) -> float:
    """Returns the tower's hidden state, residual and widest tensors for one image, and its pixels in fp32."""
    vision = model.vision
    if vision is None:
        return 0.0
    patches = num_image_tokens * vision.merge**2
    widest = max(4 * vision.hidden_size, (3 if vision.is_gated else 2) * vision.intermediate_size)
    pixels = 3 * vision.temporal_patch_size * vision.patch_size**2 * DTYPE_BYTES["fp32"]
    return patches * ((2 * vision.hidden_size + widest) * DTYPE_BYTES[precision.activation] + pixels)
