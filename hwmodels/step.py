"""The seam between the two halves: counts in (`StepShape`), seconds out (`StepCost`).

The simulator knows requests and builds a `StepShape` of plain counts; the hardware model knows FLOPs and
bytes and returns a `StepCost` split by term. Neither side sees the other's objects.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Chunk(NamedTuple):
    """`count` equal prefill chunks: `query_len` new tokens after `context_len` computed ones."""

    query_len: int
    context_len: int
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which nobody calls


class DecodeGroup(NamedTuple):
    """Decodes of one query length (1, or 1 + drafts when speculating).

    `sum_context` and `max_context` [tokens] count the KV entries that attention reads, the step's own
    tokens included: a decode of one token with 99 computed tokens has context 100.
    """

    query_len: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    sum_context: int
    max_context: int


class StepShape(NamedTuple):
    """What one forward pass of one replica holds, as counts.

    num_padded_tokens: tokens that the linear layers compute (a CUDA graph pads; >= the real ones).
    num_sampled: rows of the lm_head and of the sampler.
    uses_cuda_graph: False when the step is larger than the largest captured graph (eager launch).
    num_image_tokens: embeddings that the vision encoder makes in this step.
    dp_loads: tokens per DP rank, empty without DP. ep_imbalance: the busiest EP rank's load over the mean.
    """

    chunks: tuple[Chunk, ...] = ()
    decodes: tuple[DecodeGroup, ...] = ()
    num_padded_tokens: int = 0
    num_sampled: int = 0
    uses_cuda_graph: bool = True
    num_image_tokens: int = 0
    dp_loads: tuple[int, ...] = ()
    ep_imbalance: float = 1.0

    @property
    def num_tokens(self) -> int:
        """Real tokens of the step, padding left out."""
        prefill = sum(chunk.query_len * chunk.count for chunk in self.chunks)
        return prefill + sum(group.query_len * group.count for group in self.decodes)


class StepCost(NamedTuple):
    """Seconds of one step. `terms` [s], in the order of `StepModel.terms`, sum to `duration_s`.

    cpu_s: how long the CPU launches the step's kernels. waiting_s: the part of the duration in which the GPU
    waits for these launches, if they begin when the step before has ended; earlier launches wait less.
    """

    duration_s: float
    terms: tuple[float, ...]
    bound: str
    is_extrapolated: bool = False
    cpu_s: float = 0.0
    waiting_s: float = 0.0

    def over(self, duration_s: float) -> StepCost:
        """Returns the cost as one of `duration_s`, all terms in proportion: a step that others overlap."""
        ratio = duration_s / self.duration_s
        return self._replace(duration_s=duration_s, terms=tuple(term * ratio for term in self.terms))


class DecodeLine(NamedTuple):
    """The cost of the next `num_steps` steps of one unchanging set of decodes, a straight line.

    Step i (0 <= i < num_steps) lasts ``base_s + i * slope_s``; each term likewise with its own pair, in
    the order of `StepModel.terms`.
    """

    base_s: float
    slope_s: float
    num_steps: int
    base_terms: tuple[float, ...]
    slope_terms: tuple[float, ...]
    bound: str
    is_extrapolated: bool = False

    @classmethod
    def of_step(cls, cost: StepCost) -> DecodeLine:
        """Returns a line of one step of any composition."""
        duration_s, terms, bound, is_extrapolated, _, _ = cost
        return cls(duration_s, 0.0, 1, terms, (0.0,) * len(terms), bound, is_extrapolated)


class StepModel(Protocol):
    """Prices steps. Pure: the same arguments always give the same answer."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the cost terms, in the order of the columns of the steps table."""
        ...

    def predict(self, shape: StepShape) -> StepCost:
        """Returns the cost of one step of any composition."""
        ...

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        """Returns the cost of the coming decode steps, for as many as stay on one straight line.

        decodes: those of the first step, one token each. In step i every context is i tokens longer, so
        their sum is ``decodes.sum_context + i * decodes.count``.
        At i = 0 the line agrees with `predict` for the same counts. `num_steps` is between 1 and
        `max_steps`; a model whose cost is no line between knots returns 1.
        """
        ...
