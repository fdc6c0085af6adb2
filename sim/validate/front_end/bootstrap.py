"""Confidence by resampling: what the fit would have found from other runs, with other requests in them.

Source: A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8: both
levels are drawn with replacement, runs and then the requests of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..measured import Floats

_DRAWS = 200
SEED = 20261121
_TAILS = (2.5, 97.5)

Fit = Callable[[Sequence[Floats]], Floats]


def equal_weights(sizes: Sequence[int]) -> list[Floats]:
    """Returns the weight of each observation of each run: every run counts the same, however long."""
    return [np.full(size, 1.0 / max(1, size)) for size in sizes]


def interval(fit: Fit, sizes: Sequence[int]) -> tuple[Floats, Floats]:
    """Returns the ends of the 95 % intervals of what `fit` returns for weights of the observations.

    sizes: observations of each run.
    """
    rng = np.random.default_rng(SEED)
    found = np.array([fit(_drawn(sizes, rng)) for _ in range(_DRAWS)])
    low, high = np.percentile(found, _TAILS, axis=0)
    return low, high


def _drawn(sizes: Sequence[int], rng: np.random.Generator) -> list[Floats]:
    times = rng.multinomial(len(sizes), np.full(len(sizes), 1.0 / len(sizes)))
    weights = []
    for size, num_times in zip(sizes, times.tolist(), strict=True):
        drawn = rng.multinomial(num_times * size, np.full(size, 1.0 / size)) if size else np.zeros(0)
        weights.append(drawn / max(1, size))
    return weights
