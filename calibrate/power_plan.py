"""What to run to see the power limit: steps of an 8-billion-parameter model, in sequences of many kinds.

Every sequence begins rested. They differ in how matrix work and other work alternate, so that the fall of the
clock, its rise under decodes and its rise in pauses can be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .power_samples import StepKind

REST_S = 4.0  # before each sequence; the slowest of the driver's averages takes about a second


@dataclass(frozen=True, slots=True)
class StepGraph:
    """One step as a CUDA graph. context_len: tokens of each sequence in it, those of the step included.

    num_tokens: rows of the products; of a prefill all of its prompts', of a decode one for each sequence.
    """

    name: str
    kind: StepKind
    num_tokens: int
    context_len: int


class Turn(NamedTuple):
    """One step of a sequence, after a pause in which the GPU is idle [s]."""

    graph: str
    pause_s: float = 0.0


GRAPHS = (
    StepGraph("p2048", "prefill", 2048, 1024),
    StepGraph("p512", "prefill", 512, 512),
    StepGraph("d16", "decode", 16, 1100),
    StepGraph("d64", "decode", 64, 1150),
    StepGraph("d128", "decode", 128, 1150),
)


def _turns(graph: str, count: int) -> tuple[Turn, ...]:
    return (Turn(graph),) * count


def _pauses() -> tuple[Turn, ...]:
    """Returns bursts of prefill with longer and longer pauses between them."""
    pauses_s = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) * 2
    bursts = ((Turn("p2048", pause_s), *_turns("p2048", 3)) for pause_s in pauses_s)
    return tuple(turn for burst in bursts for turn in burst)


SEQUENCES: dict[str, tuple[Turn, ...]] = {
    "warm": _turns("p2048", 5) + _turns("d64", 20),
    "d16": _turns("d16", 200),
    "d64": _turns("d64", 400),
    "d128": _turns("d128", 300),
    "burst8": (_turns("p2048", 8) + _turns("d16", 250)) * 4,
    "sustained": _turns("p2048", 220),
    "closed64": (_turns("p2048", 32) + _turns("d64", 200)) * 3,
    "mix50": (_turns("p2048", 1) + _turns("d64", 6)) * 70,
    "mix25": (_turns("p2048", 1) + _turns("d64", 19)) * 30,
    "mix75": (_turns("p2048", 3) + _turns("d64", 6)) * 35,
    "p512": _turns("p512", 300),
    "mix50b": (_turns("p512", 2) + _turns("d64", 3)) * 80,
    "pauses": _pauses(),
}
