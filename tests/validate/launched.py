"""A step model with launches that take time, and records of steps of our own making."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from simllm.hwmodels.step import Chunk, DecodeGroup, DecodeLine, StepCost, StepShape
from simllm.sim.validate.recorded_steps import RecordedStep

Composition = tuple[int, int]
"""Decodes, and tokens of one prompt (0 if there is none)."""


@dataclass(frozen=True)
class LaunchedModel:
    """Steps of decodes alone last `decode_s`; those with prompts `prompt_s`, and the CPU launches `cpu_s`."""

    decode_s: float = 0.008
    prompt_s: float = 0.010
    cpu_s: float = 0.0
    terms: tuple[str, ...] = ("work", "launch")

    def predict(self, shape: StepShape) -> StepCost:
        if not shape.chunks:
            return StepCost(self.decode_s, (self.decode_s, 0.0), "toy")
        waiting_s = max(0.0, self.cpu_s - self.prompt_s)
        terms = (self.prompt_s, waiting_s)
        return StepCost(sum(terms), terms, "toy", cpu_s=self.cpu_s, waiting_s=waiting_s)

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        raise NotImplementedError


def recorded(rows: Iterable[tuple[float, float, Composition]]) -> list[RecordedStep]:
    """Returns a record of steps, each (decided at, output handled at [ms], what it holds)."""
    steps: list[RecordedStep] = []
    last_ended_at = float("-inf")
    for decided_ms, ended_ms, (num_decodes, tokens) in rows:
        decided_at, ended_at = decided_ms * 1e-3, ended_ms * 1e-3
        steps.append(
            RecordedStep(
                scheduled_at=decided_at,
                ended_at=ended_at,
                duration_s=ended_at - max(decided_at, last_ended_at),
                is_busy=decided_at < last_ended_at,
                num_decodes=num_decodes,
                sum_context=100 * num_decodes,
                chunks=(Chunk(tokens, 0),) if tokens else (),
            )
        )
        last_ended_at = ended_at
    return steps


def self_consistent(
    held: Sequence[Composition], emulated: Callable[[Sequence[RecordedStep]], Sequence[float]]
) -> list[RecordedStep]:
    """Returns the record of an engine with two steps in flight whose steps take what `emulated` says.

    Step i is decided when the output of step i - 2 is handled, step 1 a millisecond after step 0.
    """
    steps = recorded(
        (1e3 * max(place - 1, 0.001 * place), 1e3 * (place + 1), what) for place, what in enumerate(held)
    )
    ends_ms = [1e3 * end for end in emulated(steps)]
    decided_ms = [0.0, 1.0, *ends_ms[:-2]]
    return recorded(zip(decided_ms, ends_ms, held, strict=True))
