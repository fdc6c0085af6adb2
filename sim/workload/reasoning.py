"""How much of an answer is reasoning, and what cuts it short; drawn at once for all requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .demand import FloatColumn, IntColumn
from .lengths import sample_lengths
from .request_spec import Reasoning, ReasoningLimits, ReasoningRatio
from .streams import stream


def draw_reasoning(
    spec: Reasoning, output_tokens: IntColumn, *, seed: int, base_dir: Path
) -> tuple[IntColumn, IntColumn]:
    """Returns output tokens, reasoning included, and reasoning tokens of requests with these outputs.

    With `tokens` reasoning comes on top of the outputs, with `ratio` it is a part of them. At least one token
    is no reasoning.
    """
    rng, size = stream(seed, "reasoning"), len(output_tokens)
    reasons = rng.random(size) < spec.share
    if spec.tokens is not None:
        drawn = sample_lengths(spec.tokens, stream(seed, "reasoning_tokens"), size, base_dir=base_dir)
        return limited(spec, output_tokens, np.where(reasons, drawn, 0), rng)
    assert spec.ratio is not None, "the spec has either"
    ratios = np.where(reasons, sample_ratios(spec.ratio, stream(seed, "reasoning_ratio"), size), 0.0)
    reasoning = part_of(output_tokens, ratios)
    return limited(spec, output_tokens - reasoning, reasoning, rng)


def part_of(output_tokens: IntColumn, ratios: FloatColumn) -> IntColumn:
    """Returns so much of the outputs in whole tokens, one token being left over at least."""
    reasoning: IntColumn = np.rint(output_tokens * ratios).astype(np.int64)
    return np.minimum(reasoning, output_tokens - 1)


def limited(
    limits: ReasoningLimits, answer_tokens: IntColumn, reasoning_tokens: IntColumn, rng: np.random.Generator
) -> tuple[IntColumn, IntColumn]:
    """Returns output and reasoning tokens after early stops and the budget; answers stay as they are."""
    stops = rng.random(len(answer_tokens)) < limits.early_stop_share
    thought = np.where(stops, np.ceil(reasoning_tokens * rng.random(len(stops))), reasoning_tokens)
    reasoning = thought.astype(np.int64)
    if limits.budget_tokens is not None:
        reasoning = np.minimum(reasoning, limits.budget_tokens)
    return answer_tokens + reasoning, reasoning


def sample_ratios(spec: ReasoningRatio, rng: np.random.Generator, size: int) -> FloatColumn:
    """Returns `size` draws: a bin by its weight, then evenly within."""
    edges = np.array(spec.edges)
    weights = np.ones(len(edges) - 1) if spec.weights is None else np.array(spec.weights)
    cumulative = np.cumsum(weights) / weights.sum()
    bins = np.minimum(np.searchsorted(cumulative, rng.random(size), side="right"), len(weights) - 1)
    drawn: FloatColumn = edges[bins] + (edges[bins + 1] - edges[bins]) * rng.random(size)
    return drawn
