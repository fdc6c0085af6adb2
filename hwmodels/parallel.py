"""How a model is cut over GPUs: degrees, what is legal, and the shapes that one rank holds.

Tensor (TP), pipeline (PP), data (DP), expert (EP) and context (CP) parallelism. Times of the traffic between
ranks belong to `collectives`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import ceil

from ..errors import SimllmError
from .model import ModelSpec

# The vocabulary is padded to a multiple of this before it is split.
# Source: vLLM, vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE
VOCAB_PADDING = 64


@dataclass(frozen=True, slots=True)
class ParallelSpec:
    """Degrees of parallelism of one replica; 1 means none.

    ep: ranks that share out the experts, 1 if every rank holds a slice of each expert; as in vLLM the
    expert group is all of the TP x DP ranks. num_redundant_experts: second copies that they hold beside.
    Raises: SimllmError for a degree below 1, another `ep`, or copies that nobody shares.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    cp: int = 1
    num_redundant_experts: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 1 and field.name != "num_redundant_experts":
                raise SimllmError(f"parallel: {field.name} must be at least 1, got {value}")
        if self.ep not in (1, self.tp * self.dp):
            raise SimllmError(
                f"parallel: ep must be 1 or tp x dp = {self.tp * self.dp}, the ranks that share the experts, "
                f"got {self.ep}"
            )

        if self.num_redundant_experts and self.ep == 1:
            raise SimllmError("experts: num_redundant_experts needs ranks that share experts out, ep > 1")

    @property
    def num_gpus(self) -> int:
        """GPUs of one replica; EP uses those of TP and DP."""
        return self.tp * self.pp * self.dp * self.cp


@dataclass(frozen=True, slots=True)
class RankShapes:
    """What one rank holds of a model.

    stage_layers: layers of each pipeline stage. kv_replicas: ranks that hold the same KV head.
    intermediate_size, expert_intermediate_size, shared_intermediate_size: this rank's slice, 0 where the
    model has none. num_experts: experts whose weights (or a slice of them) lie here.
    """

    stage_layers: tuple[int, ...]
    num_q_heads: int
    num_kv_heads: int
    kv_replicas: int
    intermediate_size: int
    vocab_size: int
    num_experts: int
    expert_intermediate_size: int
    shared_intermediate_size: int


def rank_shapes(model: ModelSpec, parallel: ParallelSpec) -> RankShapes:
    """Returns the shapes of one rank. Raises: SimllmError, one line, if the model cannot be cut that way."""
    problem = next(_problems(model, parallel), None)
    if problem is not None:
        raise SimllmError(f"parallel: {model.name} {problem}")
    tp, moe = parallel.tp, model.moe
    has_whole_experts = parallel.ep > 1
    num_kv_heads = 1 if model.mla is not None else model.num_kv_heads  # MLA: one latent for all heads
    return RankShapes(
        stage_layers=stage_layers(model.num_layers, parallel.pp),
        num_q_heads=model.num_q_heads // tp,
        num_kv_heads=max(1, num_kv_heads // tp),
        kv_replicas=max(1, tp // num_kv_heads),
        intermediate_size=model.intermediate_size // tp,
        vocab_size=ceil(model.vocab_size / VOCAB_PADDING) * VOCAB_PADDING // tp,
        num_experts=0 if moe is None else (moe.num_experts + parallel.num_redundant_experts) // parallel.ep,
        expert_intermediate_size=0
        if moe is None
        else moe.intermediate_size // (1 if has_whole_experts else tp),
        shared_intermediate_size=0 if moe is None else moe.shared_intermediate_size // tp,
    )


def stage_layers(num_layers: int, num_stages: int) -> tuple[int, ...]:
    """Returns the layers of each stage; a remainder goes to the stages before the last.

    The last stage also holds the lm_head. 61 layers over 4 stages: 15, 15, 16, 15.
    Source: vLLM, distributed/utils.py, get_pp_indices
    """
    layers, rest = divmod(num_layers, num_stages)
    first = num_stages - 1 - rest
    return tuple(layers + (first <= stage < num_stages - 1) for stage in range(num_stages))


def _problems(model: ModelSpec, parallel: ParallelSpec) -> Iterator[str]:
    """Yields what forbids the cut, each as the rest of a sentence that begins with the model's name."""
    tp, moe = parallel.tp, model.moe
    if model.num_q_heads % tp:
        yield f"has {model.num_q_heads} query heads, which tp={tp} does not divide"
    if model.mla is None and model.num_kv_heads % tp and tp % model.num_kv_heads:
        yield f"has {model.num_kv_heads} KV heads, which tp={tp} neither divides nor is a multiple of"
    if model.num_dense_layers and model.intermediate_size % tp:
        yield f"has an MLP of {model.intermediate_size}, which tp={tp} does not divide"
    if parallel.pp > model.num_layers:
        yield f"has {model.num_layers} layers, fewer than pp={parallel.pp} stages"
    if moe is None:
        if parallel.ep > 1:
            yield f"has no experts to share out over ep={parallel.ep}"
        return
    if moe.num_experts % parallel.ep:
        yield f"has {moe.num_experts} experts, which ep={parallel.ep} does not divide"
    if parallel.ep == 1 and moe.intermediate_size % tp:
        yield f"has experts of {moe.intermediate_size}, which tp={tp} does not divide"
    if moe.shared_intermediate_size % tp:
        yield f"has shared experts of {moe.shared_intermediate_size}, which tp={tp} does not divide"
