"""Expert parallelism: how the experts that tokens choose fall on the ranks that share them out.

Each rank holds whole experts, and every layer waits for the rank with the most to do. With few tokens that is
chance; with many, it is which experts are popular and where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import hypot, log, log1p, sqrt

import numpy as np

from ..errors import SimllmError
from .expert_load import chosen_shares
from .model import MoeSpec
from .op_form import Array

# Mean rows from which counts are as good as normal: the largest of 256 ranks is then off by 1 % at most.
_NORMAL_FROM = 256.0
_ENOUGH_DEVIATIONS = 12.0
_FEW_MORE = 40
# Layers that random placement is averaged over, always the same ones.
_ORDERS, _SEED = 256, 0


@dataclass(frozen=True, slots=True)
class ExpertRouting:
    """Which experts tokens choose, and what evens out the ranks' loads.

    skew: the i-th most popular expert has weight i^-skew; 0 is evenly. is_balanced: experts are placed by
    their load (vLLM --enable-eplb), else by their number. num_redundant: second copies of popular experts.
    Raises: SimllmError for a negative figure, or copies without balancing.
    """

    skew: float = 0.0
    is_balanced: bool = False
    num_redundant: int = 0

    def __post_init__(self) -> None:
        if self.skew < 0 or self.num_redundant < 0:
            raise SimllmError(f"experts: skew and redundant experts must be at least 0, got {self}")
        if self.num_redundant and not self.is_balanced:
            raise SimllmError(
                "experts: num_redundant_experts needs enable_eplb, which decides what they copy"
            )


EVEN = ExpertRouting()


class ExpertRanks:
    """The load of the busiest of the ranks that share the experts of a layer, on average over layers."""

    def __init__(self, moe: MoeSpec, num_ranks: int, routing: ExpertRouting = EVEN) -> None:
        """Raises: SimllmError if the ranks cannot hold equally many experts, copies included."""
        num_held = moe.num_experts + routing.num_redundant
        if num_held % num_ranks:
            raise SimllmError(
                f"experts: {moe.num_experts} experts and {routing.num_redundant} copies cannot be shared out "
                f"evenly over ep={num_ranks} ranks"
            )
        self.num_ranks = num_ranks
        self.num_held = num_held // num_ranks
        self.skew = routing.skew
        self._mean = moe.top_k / num_ranks
        shares = chosen_shares(moe.num_experts, moe.top_k, routing.skew)
        # Of one token's picks on one rank; tokens choose without repeats, so they spread more evenly.
        spread = (moe.num_experts - moe.top_k) / max(moe.num_experts - 1, 1)
        self._sampling = self._mean * (1 - 1 / num_ranks) * spread
        self._most = _busiest_load(shares, num_ranks, routing)

    def picks(self, num_tokens: int) -> float:
        """Returns how many of a token's experts lie on the busiest rank, at least the mean.

        What popularity and chance add to the mean are independent, so their squares add up.
        SIMPLIFIED: balancing knows the shares exactly; effect: up to some percent of the MoE layers' time.
        """
        if num_tokens < 1 or self.num_ranks == 1:
            return self._most
        mean = num_tokens * self._mean
        by_chance = expected_largest(mean, num_tokens * self._sampling, self.num_ranks) - mean
        by_popularity = num_tokens * (self._most - self._mean)
        return self._mean + hypot(by_chance, by_popularity) / num_tokens

    def imbalance(self, num_tokens: int) -> float:
        """Returns the busiest rank's load over the mean."""
        return self.picks(num_tokens) / self._mean


def _busiest_load(shares: Array, num_ranks: int, routing: ExpertRouting) -> float:
    """Returns the picks of one token on the rank with the most popular experts.

    Without balancing experts lie by their number, which says nothing of how popular they are: the mean over
    random orders stands for the layers of a model.
    """
    if num_ranks == 1 or not routing.skew:
        return float(shares.sum()) / num_ranks
    if routing.is_balanced:
        return float(balanced_loads(shares, num_ranks, routing.num_redundant).max())
    orders = np.random.default_rng(_SEED).permuted(np.tile(shares, (_ORDERS, 1)), axis=1)
    return float(orders.reshape(_ORDERS, num_ranks, -1).sum(axis=2).max(axis=1).mean())


def balanced_loads(shares: Array, num_ranks: int, num_redundant: int) -> Array:
    """Returns the ranks' expected picks of one token with the most loaded experts copied, then packed evenly.

    Copies go one by one to the expert with the most load per copy; experts go from the heaviest on to the
    lightest rank that has room.
    Source: DeepSeek EPLB, eplb.py: replicate_experts and balanced_packing, global policy.
    """
    counts = np.ones(len(shares))
    for _ in range(num_redundant):
        counts[int((shares / counts).argmax())] += 1
    held = np.sort(np.repeat(shares / counts, counts.astype(np.int64)))[::-1]
    loads, num_held = np.zeros(num_ranks), np.zeros(num_ranks)
    room = len(held) // num_ranks
    for load in held:
        rank = int(np.where(num_held < room, loads, np.inf).argmin())
        loads[rank] += load
        num_held[rank] += 1
    return loads


@lru_cache(maxsize=4096)
def expected_largest(mean: float, variance: float, num_ranks: int) -> float:
    """Returns the expected largest of `num_ranks` equally distributed counts with a fixed sum.

    A fixed sum makes counts differ more from each other than independent ones of the same variance, by
    sqrt(r / (r - 1)). Few are binomial, or negative binomial if they vary more; many are normal.
    8 picks of 128 experts on 2 ranks: the busier one has 5.1.
    """
    if num_ranks == 1 or variance <= 0.0:
        return mean
    variance *= num_ranks / (num_ranks - 1)
    if mean >= _NORMAL_FROM:
        return mean + sqrt(variance) * _largest_normal(num_ranks)
    below = np.minimum(np.cumsum(np.exp(_log_shares(mean, variance))), 1.0)
    return float((1.0 - below**num_ranks).sum())


def _log_shares(mean: float, variance: float) -> Array:
    """Returns the logarithm of the probability of every count that matters."""
    last = int(mean + _ENOUGH_DEVIATIONS * sqrt(variance)) + _FEW_MORE
    counts = np.arange(last, dtype=np.float64)
    if variance < mean:
        draws = float(np.ceil(mean**2 / (mean - variance)))
        share = mean / draws
        counts = counts[counts < draws]
        steps = np.log((draws - counts) / (counts + 1)) + log(share) - log1p(-share)
        return np.concatenate(([draws * log1p(-share)], draws * log1p(-share) + np.cumsum(steps)))
    failures = mean**2 / (variance - mean) if variance > mean else 1e9
    share = mean / (mean + failures)
    steps = np.log((failures + counts) / (counts + 1)) + log(share)
    first = failures * log1p(-share)
    return np.concatenate(([first], first + np.cumsum(steps)))


@lru_cache(maxsize=256)
def _largest_normal(num_ranks: int) -> float:
    """Returns the mean of the largest of that many standard normal variables."""
    grid = np.linspace(-10.0, 10.0, 4001)
    density = np.exp(-(grid**2) / 2) / sqrt(2 * np.pi)
    below = np.minimum(np.cumsum(density) * (grid[1] - grid[0]), 1.0)
    # E max = integral of x d(F^r), by parts over the two halves of the axis.
    powers = below**num_ranks
    step = float(grid[1] - grid[0])
    above, under = (1 - powers)[grid >= 0].sum() * step, powers[grid < 0].sum() * step
    return float(above - under)
