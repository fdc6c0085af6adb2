"""Lengths of prompts and answers that several sources use."""

from __future__ import annotations

from math import exp, log
from statistics import NormalDist

from .runs import Data

# ShareGPT as PagedAttention (arXiv 2309.06180), figure 11, has it: mean 161.31 tokens in and 337.99 out. The
# spread is read off its histogram; the cut at 1,024 in is that of vLLM's benchmark_throughput.py.
SHAREGPT_PROMPTS: Data = {
    "kind": "lognormal",
    "mean_tokens": 161,
    "std_tokens": 200,
    "min_tokens": 4,
    "max_tokens": 1024,
}
SHAREGPT_ANSWERS: Data = {
    "kind": "lognormal",
    "mean_tokens": 338,
    "std_tokens": 260,
    "min_tokens": 4,
    "max_tokens": 1024,
}
P90 = NormalDist().inv_cdf(0.9)


def normal(mean_tokens: float, relative_std: float, max_tokens: int) -> Data:
    """Returns a normal distribution, cut at 1 and at `max_tokens`, as 200 equally likely values."""
    dist = NormalDist(mean_tokens, relative_std * mean_tokens)
    values = (round(dist.inv_cdf((number + 0.5) / 200)) for number in range(200))
    return {"kind": "histogram", "values_tokens": [min(max(value, 1), max_tokens) for value in values]}


def lognormal(median_tokens: int, p90_tokens: int, max_tokens: int) -> Data:
    """Returns the lognormal distribution with this median and 90th percentile."""
    sigma = log(p90_tokens / median_tokens) / P90
    return {
        "kind": "lognormal",
        "median_tokens": median_tokens,
        "sigma": sigma,
        "min_tokens": 4,
        "max_tokens": max_tokens,
    }


def capped_exponential(mean_tokens: float, cap: int) -> Data:
    """Returns an exponential distribution, rounded, 0 taken as 1 and values above `cap` drawn again."""
    above = [exp(-max(token - 0.5, 0.0) / mean_tokens) for token in range(cap + 2)]
    shares = [above[token] - above[token + 1] for token in range(cap + 1)]
    weights = [shares[0] + shares[1], *shares[2:]]
    return {"kind": "histogram", "values_tokens": list(range(1, cap + 1)), "weights": weights}


def uniform(min_tokens: int, max_tokens: int) -> Data:
    """Returns whole numbers in between, both ends included."""
    return {"kind": "uniform", "min_tokens": min_tokens, "max_tokens": max_tokens}
