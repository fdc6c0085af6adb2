"""An engine that serves one request at a time is a queue with one server, whose waits are known.

Source: Pollaczek 1930, Khinchine 1932: in M/G/1 the mean wait is ``rate * E[S^2] / (2 (1 - rho))``, which is
``rho s / (2 (1 - rho))`` for constant service (M/D/1) and ``rho s / (1 - rho)`` for exponential (M/M/1).
"""

from __future__ import annotations

import numpy as np
import pytest
from harness import play
from numpy.typing import NDArray
from toys import ToyStepModel

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.workload.demand import Demand

NUM_REQUESTS = 60_000
ONE_AT_A_TIME = VllmV1Spec(max_num_seqs=1, max_num_batched_tokens=1 << 16, async_scheduling=False)
Floats = NDArray[np.float64]


def waits(
    arrived_at: Floats, prompt_tokens: NDArray[np.int64], output_tokens: int, model: ToyStepModel
) -> Floats:
    """Returns how long each request waited for its first step [s]."""
    demand = Demand(arrived_at, prompt_tokens, np.full(len(arrived_at), output_tokens))
    recorder, _ = play(demand, spec=ONE_AT_A_TIME, model=model, num_blocks=1 << 16, block_size=16)
    return np.asarray(recorder.scheduled_at) - arrived_at


def lindley(arrived_at: Floats, service_s: Floats) -> Floats:
    """Returns the waits of a queue with one server: ``W' = max(0, W + S - A)``, request by request.

    With U = cumsum(S - A) this is the distance of U from its running minimum (Lindley 1952).
    """
    walk = np.concatenate([[0.0], np.cumsum(service_s[:-1] - np.diff(arrived_at))])
    distance: Floats = walk - np.minimum.accumulate(walk)
    return distance


def assert_mean(sample: Floats, expected: float) -> None:
    """Checks a mean of dependent values, by 60 batches that are long enough to be nearly independent.

    Batches of 1,000 requests are tens of busy periods at rho = 0.7, so their means scatter as independent
    ones do; four standard errors leave a right mean out once in 10,000 seeds, and must be below 15 %.
    """
    means = sample.reshape(60, -1).mean(axis=1)
    error = means.std(ddof=1) / np.sqrt(len(means))
    assert 4 * error < 0.15 * expected
    assert abs(sample.mean() - expected) < 4 * error


@pytest.mark.parametrize("output_tokens", [1, 10])
def test_constant_service_waits_as_m_d_1(output_tokens: int) -> None:
    # A step takes 10 ms whatever it holds. With 10 tokens a request its 9 decodes pass as one leap.
    service_s, rho = 0.010 * output_tokens, 0.7
    arrived_at = np.random.default_rng(1).exponential(service_s / rho, NUM_REQUESTS).cumsum()
    waited = waits(arrived_at, np.full(NUM_REQUESTS, 4), output_tokens, ToyStepModel(base_s=0.010))
    np.testing.assert_allclose(waited, lindley(arrived_at, np.full(NUM_REQUESTS, service_s)), atol=1e-7)
    assert_mean(waited, rho * service_s / (2 * (1 - rho)))


def test_exponential_service_waits_as_m_m_1() -> None:
    # A step takes 10 us for each token of its prompt; prompts are exponential with a mean of 1,000 tokens,
    # rounded up, which is half a token more in the mean: 0.05 % of the service.
    rng, service_s, rho = np.random.default_rng(2), 0.010, 0.7
    prompt_tokens = np.ceil(rng.exponential(1000, NUM_REQUESTS)).astype(np.int64)
    arrived_at = rng.exponential(service_s / rho, NUM_REQUESTS).cumsum()
    model = ToyStepModel(base_s=0.0, token_s=1e-5, decode_s=1e-5)  # a prompt of one token is like a decode
    waited = waits(arrived_at, prompt_tokens, 1, model)
    np.testing.assert_allclose(waited, lindley(arrived_at, prompt_tokens * 1e-5), atol=1e-7)
    assert_mean(waited, rho * service_s / (1 - rho))
