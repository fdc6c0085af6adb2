"""Cold steps: stalls of the real engine that no cost model speaks of, found, listed and kept out.

A kernel that is compiled or a buffer that is allocated in the middle of a run stops the engine for a
second, once. A step is cold if it takes over 20 times the median of its class (decode, prefill, mixed).
Without a record of the steps, a silence between two tokens of one request stands for it, if it is over 20
times the 99th percentile of all such gaps and no request got a token meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .measured import Floats, MeasuredRun
from .recorded_steps import RecordedStep

COLD_FACTOR = 20.0
# Tokens of one step reach their clients within a few milliseconds of each other.
_TOLERANCE_S = 0.02


@dataclass(frozen=True, slots=True)
class ColdStep:
    """A stall: when it began [s] and how long it took, beside what is typical for its class [s].

    kind: the class of the step, or `gap` if it was told from the tokens' instants.
    """

    started_at: float
    duration_s: float
    typical_s: float
    kind: str

    @property
    def ended_at(self) -> float:
        """When it was over [s]."""
        return self.started_at + self.duration_s

    @property
    def excess_s(self) -> float:
        """What it took beyond the typical step [s]."""
        return self.duration_s - self.typical_s

    def describe(self) -> str:
        """Returns it in words."""
        typical = f"typical {self.typical_s:.3f} s"
        return f"{self.kind} of {self.duration_s:.3f} s at {self.started_at:.2f} s ({typical})"


def is_cold(steps: Sequence[RecordedStep]) -> NDArray[np.bool_]:
    """Returns which steps take over 20 times the median of their class."""
    typical_s = _typical(steps)
    return np.array([step.duration_s > COLD_FACTOR * typical_s[step.kind] for step in steps], dtype=np.bool_)


def cold_steps(steps: Sequence[RecordedStep]) -> list[ColdStep]:
    """Returns those steps, described."""
    typical_s = _typical(steps)
    return [
        ColdStep(step.ended_at - step.duration_s, step.duration_s, typical_s[step.kind], step.kind)
        for step, cold in zip(steps, is_cold(steps), strict=True)
        if cold
    ]


def cold_gaps(run: MeasuredRun) -> list[ColdStep]:
    """Returns the silences that stand for cold steps; none if the tokens' instants are not all known."""
    if run.itls is None or run.sent_at is None:
        return []
    gaps = np.concatenate([np.empty(0), *run.itls])
    if not len(gaps):
        return []
    limit_s, typical_s = COLD_FACTOR * float(np.percentile(gaps, 99)), float(np.median(gaps))
    firsts = run.sent_at + run.ttft_s
    tokens = [first + np.cumsum(np.append(0.0, own)) for first, own in zip(firsts, run.itls, strict=True)]
    instants = np.sort(np.concatenate(tokens))
    cold: list[ColdStep] = []
    for own in tokens:
        for place in np.flatnonzero(np.diff(own) > limit_s):
            found = ColdStep(float(own[place]), float(own[place + 1] - own[place]), typical_s, "gap")
            if _is_silent(instants, found) and not any(_overlap(found, other) for other in cold):
                cold.append(found)
    return cold


def hit_by(cold: Sequence[ColdStep], run: MeasuredRun) -> NDArray[np.bool_]:
    """Returns which requests were in the system while a cold step lasted."""
    hit = np.zeros(len(run.ttft_s), dtype=np.bool_)
    if run.sent_at is not None:
        ended_at = run.sent_at + run.e2el_s
        for step in cold:
            hit |= (run.sent_at < step.ended_at) & (ended_at > step.started_at)
    return hit


def without_stalls(cold: Sequence[ColdStep], run: MeasuredRun) -> MeasuredRun:
    """Returns the run with each latency less what the cold steps in it took too long; gaps are forgotten."""
    if run.sent_at is None:
        return run
    ttft_s, e2el_s = run.ttft_s.copy(), run.e2el_s.copy()
    for step in cold:
        for latency_s in (ttft_s, e2el_s):
            # What counts is whether the stall was over before the token came.
            waited = (run.sent_at < step.started_at) & (run.sent_at + latency_s >= step.ended_at)
            latency_s[waited] -= step.excess_s
    return replace(run, ttft_s=ttft_s, e2el_s=e2el_s, itls=None, scalar_itl={})


def _typical(steps: Sequence[RecordedStep]) -> dict[str, float]:
    """Returns the median duration of each class that occurs [s]."""
    kinds = {step.kind for step in steps}
    return {
        kind: float(np.median([step.duration_s for step in steps if step.kind == kind])) for kind in kinds
    }


def _is_silent(instants: Floats, gap: ColdStep) -> bool:
    after = np.searchsorted(instants, gap.started_at + _TOLERANCE_S, side="right")
    return bool(after == len(instants) or instants[after] > gap.ended_at - _TOLERANCE_S)


def _overlap(first: ColdStep, second: ColdStep) -> bool:
    return first.started_at < second.ended_at and second.started_at < first.ended_at
