"""What every engine's settings have beside those that its users type: the engine's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field

from ....hwmodels.attention_algorithms import AttentionImpl
from ....hwmodels.attention_style import PAGED, AttentionStyle
from ...spec import Spec


@dataclass(frozen=True, slots=True)
class PoolDefaults:
    """What an engine has for those of its pool's settings that nobody gave: fields of `kv`, and others."""

    kv: Mapping[str, object] = field(default_factory=dict)
    attention_impl: AttentionImpl | None = None


class EngineSpec(Spec):
    """The base of the engines' settings.

    Memory, CUDA graphs and the steps in flight are sized from `max_num_batched_tokens`, `max_num_seqs`,
    `max_model_len` and `async_scheduling`, which each engine has as fields or as properties.
    default_block_size: tokens per KV block unless the pool's `kv` says. default_step_s: GPU idle in each
    step beside kernels unless the pool's `engine_overhead` says [s], None for vLLM's. captures_graphs: the
    engine replays CUDA graphs. graphs_prefills: also for steps with prompts. is_eager: its model is plain
    PyTorch. searches_beams: it schedules requests with beams. variants: other names of the engine, each with
    some of its settings.
    """

    default_block_size: ClassVar[int] = 16
    default_step_s: ClassVar[float | None] = None
    captures_graphs: ClassVar[bool] = True
    graphs_prefills: ClassVar[bool] = True
    is_eager: ClassVar[bool] = False
    searches_beams: ClassVar[bool] = False
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = MappingProxyType({})

    @classmethod
    def pool_defaults(cls, settings: Mapping[str, Any]) -> PoolDefaults:
        """Returns the pool's defaults under this engine with these settings, which may be wrong yet."""
        return PoolDefaults(kv={"block_size": cls.default_block_size})

    @property
    def capture_sizes(self) -> tuple[int, ...] | None:
        """Batch sizes of its CUDA graphs unless the pool says; None for vLLM's."""
        return None if self.captures_graphs else ()

    @property
    def overhead_defaults(self) -> Mapping[str, float]:
        """Constants of `EngineOverhead` that are the engine's own unless the pool says."""
        return {} if self.default_step_s is None else {"step_s": self.default_step_s}

    @property
    def attention_style(self) -> AttentionStyle:
        """How it runs attention of decodes."""
        return PAGED


class ReservingSpec(EngineSpec):
    """The base of engines that reserve KV for an answer before they know its length."""

    max_new_tokens: int | None = Field(
        None, ge=1, description="Most tokens that clients ask for; by default each answer's own length."
    )
