"""A batch: what one engine step does, as a scheduler decided it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...hwmodels.step import Chunk, DecodeGroup
from .live_request import LiveRequest


class Computed(NamedTuple):
    """What the GPU computes for a batch where that is more than its requests' tokens.

    Prompts padded to the longest, rows of requests that have ended, logits that nobody samples.
    """

    chunks: tuple[Chunk, ...]
    decodes: DecodeGroup
    num_sampled: int

    @property
    def num_tokens(self) -> int:
        """Tokens that the linear layers compute."""
        return self.decodes.count + sum(chunk.query_len * chunk.count for chunk in self.chunks)


@dataclass(slots=True)
class Batch:
    """One step's work.

    chunks: prefill chunks of more than one token. decodes: every one-token schedule, a one-token rest of a
    prompt included (the kernels don't tell them apart).
    completing: requests whose prefill ends here; they sample a token. finishing: those whose last token
    comes here. paused: decodes that take no part though they did in the step before (preempted or out of
    budget); rejoined: decodes that were paused before. num_continuing: decodes with a token in the last step
    with decodes. num_waiting, num_running, kv_blocks_used: just after the step was scheduled.
    stalls_decodes: running decodes get no token here, and go on together in a later step. late: those who
    got their first token in the step before, while the others stalled; they rejoin with them.
    computed: what the GPU computes, if it is not just this. follows: the step that gave its continuing
    decodes their last token, 0 for the step before. strays: paused ones that got theirs in another step, and
    in which.
    """

    step: int
    chunks: tuple[Chunk, ...]
    decodes: DecodeGroup
    num_tokens: int
    num_sampled: int
    num_continuing: int
    num_running: int
    num_waiting: int
    num_preempted: int
    kv_blocks_used: int
    completing: Sequence[LiveRequest] = ()
    finishing: Sequence[LiveRequest] = ()
    paused: Sequence[LiveRequest] = ()
    rejoined: Sequence[LiveRequest] = ()
    admitted: Sequence[LiveRequest] = ()
    stalls_decodes: bool = False
    late: Sequence[LiveRequest] = ()
    computed: Computed | None = None
    follows: int = 0
    strays: Sequence[tuple[LiveRequest, int]] = ()
