"""A batch: what one engine step does, as a scheduler decided it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...hwmodels.step import Chunk, DecodeGroup
from .live_request import LiveRequest


@dataclass(slots=True)
class Batch:
    """One step's work.

    chunks: prefill chunks of more than one token. decodes: every one-token schedule, a one-token rest of a
    prompt included (the kernels don't tell them apart).
    completing: requests whose prefill ends here; they sample a token. finishing: those whose last token
    comes here. paused: decodes that take no part though they did in the step before (preempted or out of
    budget); rejoined: decodes that were paused before. num_continuing: decodes with a token in the step
    before as well. num_waiting, num_running, kv_blocks_used: just after the step was scheduled.
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
