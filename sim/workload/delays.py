"""How long users think and tools run."""

from __future__ import annotations

from typing import assert_never

import numpy as np

from .demand import FloatColumn
from .request_spec import DelaySpec, ExponentialDelay, FixedDelay, LognormalDelay


def sample_delays(spec: DelaySpec, rng: np.random.Generator, size: int) -> FloatColumn:
    """Returns `size` delays [s], each at least 0."""
    match spec:
        case FixedDelay():
            return np.full(size, spec.delay_s)
        case ExponentialDelay():
            return rng.exponential(spec.mean_s, size)
        case LognormalDelay():
            delays = rng.lognormal(np.log(spec.median_s), spec.sigma, size)
            return delays if spec.max_s is None else np.minimum(delays, spec.max_s)
        case _:
            assert_never(spec)
