"""A step through pipeline stages: what each stage computes, and what passes between them.

Every stage is a step model of its own layers. Between two of them the hidden states go point to point; where
the first stage needs the sampled tokens for the next step, the last one sends them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from ..units import DTYPE_BYTES
from .collectives import Collectives
from .cudagraph import CudaGraphSizes
from .parallel import ParallelSpec
from .precision import Precision
from .roofline_step import TERMS, RooflineStepModel
from .step import DecodeGroup, DecodeLine, StepCost, StepShape

# A stage hands on hidden states and residual, which the next layer's norm adds up.
# Source: vLLM, models/llama.py, IntermediateTensors of `hidden_states` and `residual`
HANDED_TENSORS = 2
# Sampled tokens go back as int32. Source: vLLM, gpu_model_runner.py, sampled token ids.
TOKEN_ID_BYTES = 4

_COMMUNICATION, _LAUNCH = TERMS.index("communication"), TERMS.index("launch")


class PassedStage(NamedTuple):
    """When a step was in a stage [s], and what it cost there."""

    entered_at: float
    left_at: float
    cost: StepCost


class PipelineStepModel:
    """Costs of the steps of one replica whose layers lie on several stages; implements `StepModel`.

    A step's cost is that of its way through an empty pipeline: the stages one after another, the hidden
    states between them. How steps overlap is the engine's affair, by `stage_costs`.
    returns_tokens: the next step's first stage needs this one's tokens, on the GPU.
    """

    terms: tuple[str, ...] = TERMS

    def __init__(
        self,
        stages: Sequence[RooflineStepModel],
        collectives: Collectives,
        *,
        parallel: ParallelSpec,
        returns_tokens: bool,
    ) -> None:
        """stages: first to last; `collectives` has the links between them."""
        self.stages = tuple(stages)
        self.parallel = parallel
        self.returns_tokens = returns_tokens
        self._collectives = collectives
        self._tensor_bytes = stages[0].model.hidden_size * DTYPE_BYTES[self.precision.activation]

    @cached_property
    def precision(self) -> Precision:
        """Dtypes, the same in all stages."""
        return self.stages[0].precision

    @property
    def cuda_graph(self) -> CudaGraphSizes:
        """The sizes that every stage captures."""
        return self.stages[0].cuda_graph

    def stage_costs(self, shape: StepShape) -> tuple[StepCost, ...]:
        """Returns what each stage computes, first to last, its launches beginning when it may begin."""
        return tuple(stage.predict(shape) for stage in self.stages)

    def handover_s(self, num_tokens: int) -> float:
        """Returns the time of the hidden states of `num_tokens` from one stage to the next.

        Every rank sends its share of each tensor to its peer, and the next stage's ranks gather them.
        Source: vLLM, parallel_state.py, send_tensor_dict with `all_gather_group`
        """
        tp, num_bytes = self.parallel.tp, num_tokens * self._tensor_bytes
        return HANDED_TENSORS * (
            self._collectives.send_recv_s(num_bytes / tp) + self._collectives.all_gather_s(num_bytes, tp)
        )

    def return_s(self, num_sampled: int) -> float:
        """Returns the time until the first stage has the sampled tokens, 0 where it needs none."""
        if not (self.returns_tokens and num_sampled):
            return 0.0
        return self._collectives.broadcast_s(num_sampled * TOKEN_ID_BYTES, len(self.stages))

    def predict(self, shape: StepShape) -> StepCost:
        """Returns the cost of one step alone; launches of all stages begin together."""
        passed: list[PassedStage] = []
        arrived_at, handover_s = 0.0, self.handover_s(shape.num_padded_tokens)
        for cost in self.stage_costs(shape):
            own = launched_before(cost, arrived_at)
            passed.append(PassedStage(arrived_at, arrived_at + own.duration_s, own))
            arrived_at += own.duration_s + handover_s
        return whole_cost(passed, passed[-1].left_at + self.return_s(shape.num_sampled))

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        """Returns the cost of the coming decode steps, up to the next knot of any stage.

        SIMPLIFIED: where launches of a later stage bind, they count in full although they began while the
        stages before it computed; effect: none with CUDA graphs, whose launches bind nowhere.
        """
        lines = [stage.decode_line(decodes, max_steps) for stage in self.stages]
        num_steps = min(line.num_steps for line in lines)
        between_s = (len(lines) - 1) * self.handover_s(self.cuda_graph.pad(decodes.count))
        between_s += self.return_s(decodes.count)
        base_terms = _summed([line.base_terms for line in lines], between_s)
        return DecodeLine(
            sum(line.base_s for line in lines) + between_s,
            sum(line.slope_s for line in lines),
            num_steps,
            base_terms,
            _summed([line.slope_terms for line in lines], 0.0),
            max(lines, key=lambda line: line.base_s).bound,
            any(line.is_extrapolated for line in lines),
        )


def launched_before(cost: StepCost, early_s: float) -> StepCost:
    """Returns a stage's cost where its launches began `early_s` before it."""
    saved_s = min(cost.waiting_s, early_s)
    if not saved_s:
        return cost
    terms = list(cost.terms)
    terms[_LAUNCH] -= saved_s
    return cost._replace(
        duration_s=cost.duration_s - saved_s, terms=tuple(terms), waiting_s=cost.waiting_s - saved_s
    )


def whole_cost(passed: Sequence[PassedStage], ended_at: float) -> StepCost:
    """Returns the cost of a step that has passed its stages; what lies between them is communication.

    ended_at: when the next step may have its tokens [s].
    """
    costs = [stage.cost for stage in passed]
    duration_s = ended_at - passed[0].entered_at
    between_s = duration_s - sum(cost.duration_s for cost in costs)
    return StepCost(
        duration_s,
        _summed([cost.terms for cost in costs], between_s),
        max(costs, key=lambda cost: cost.duration_s).bound,
        any(cost.is_extrapolated for cost in costs),
        cpu_s=max(cost.cpu_s for cost in costs),
        waiting_s=sum(cost.waiting_s for cost in costs),
    )


def _summed(terms: Sequence[tuple[float, ...]], between_s: float) -> tuple[float, ...]:
    sums = [sum(column) for column in zip(*terms, strict=True)]
    sums[_COMMUNICATION] += between_s
    return tuple(sums)
