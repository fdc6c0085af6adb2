"""When the real engine first saw each request, told from its record of steps.

A request that has left the front end waits in the engine's queue or is admitted at once; so the number
admitted so far plus the number waiting, step by step, counts the requests that the engine has seen. They
are admitted in the order of sending.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np

from ...hwmodels.step import Chunk
from .measured import Floats
from .recorded_steps import RecordedStep, num_preemptions


def admissions(steps: Iterable[Sequence[Chunk]]) -> list[int]:
    """Returns how many requests have begun their prompt after each step, from the chunks of the steps.

    A chunk that goes on where another one ended belongs to the same request.
    """
    ends: list[int] = []
    counts = []
    for chunks in steps:
        num_new = 0
        for chunk in chunks:
            if chunk.context_len and chunk.context_len in ends:
                ends.remove(chunk.context_len)
            else:
                num_new += 1
            ends.append(chunk.context_len + chunk.query_len)
        counts.append(num_new)
    return list(accumulate(counts))


def first_seen(steps: Sequence[RecordedStep], num_requests: int) -> list[int | None] | None:
    """Returns the step at whose decision the engine had first seen each request, None for one after the end.

    None if the record does not tell: no queue lengths, or preemptions, after which prompts begin again.
    """
    if num_preemptions(list(steps)) != 0:
        return None
    waiting = [step.num_waiting for step in steps]
    admitted = admissions(step.chunks for step in steps)
    seen = np.array([a + w for a, w in zip(admitted, waiting, strict=True) if w is not None])
    if len(seen) < len(steps):
        return None
    seen = np.maximum.accumulate(seen)
    places = np.searchsorted(seen, np.arange(num_requests), side="right").tolist()
    return [place if place < len(steps) else None for place in places]


def arrivals_as_seen(steps: Sequence[RecordedStep], seen: Sequence[int | None]) -> Floats:
    """Returns instants of arrival [s] with which a simulation sees each request at the same decision.

    For two steps in flight: the simulation, which takes the recorded durations, decides a step when the one
    before the last ends; after an idle time two at once, when a request arrives.
    """
    decided_at, last_end = _decisions(steps)
    instants = []
    for place in seen:
        if place is None:
            instants.append(last_end + 1.0)
        elif place == 0 or not steps[place].is_busy:
            instants.append(decided_at[place])
        else:
            # Anywhere between the decision that had not seen it and the one that had.
            instants.append((decided_at[place - 1] + decided_at[place]) / 2)
    return np.maximum.accumulate(np.array(instants))


def _decisions(steps: Sequence[RecordedStep]) -> tuple[list[float], float]:
    """Returns when the simulation decides each step, and when the last one ends [s]."""
    decided_at: list[float] = []
    ended_at = [0.0]  # before the first step
    began = 0
    for number, step in enumerate(steps):
        if number == 0 or not step.is_busy:
            began = number
            decided_at.append(max(ended_at[-1], step.scheduled_at))
        else:
            decided_at.append(decided_at[began] if number - began < 2 else ended_at[number - 1])
        ended_at.append(max(ended_at[-1], decided_at[-1]) + step.duration_s)
    return decided_at, ended_at[-1]
