"""Tenants of requests: drawn by share, one for all turns of a session."""

from __future__ import annotations

import numpy as np
import pytest

from simllm.sim.workload.demand import Demand
from simllm.sim.workload.tenants import with_tenants


def demand(num_requests: int, session_id: np.ndarray | None = None) -> Demand:
    ones = np.ones(num_requests, dtype=np.int64)
    return Demand(np.zeros(num_requests), ones, ones, session_id=session_id)


def test_tenants_come_by_their_shares_and_are_the_same_for_a_seed() -> None:
    drawn, again = (with_tenants(demand(10_000), (3, 1), seed=5).tenant for _ in range(2))
    assert drawn is not None and again is not None
    assert drawn.mean() == pytest.approx(0.25, abs=0.02)  # five standard deviations
    assert (drawn == again).all()


def test_all_turns_of_a_session_are_one_tenants_and_requests_without_one_are_drawn_alone() -> None:
    sessions = np.array([0, 1, 2, 3] * 50 + [-1] * 200)
    drawn = with_tenants(demand(400, sessions), (1, 1), seed=1).tenant
    assert drawn is not None
    assert all(len(set(drawn[sessions == session])) == 1 for session in range(4))
    assert set(drawn[sessions == -1]) == {0, 1}


def test_without_shares_the_demand_stays_as_it_was_recorded() -> None:
    recorded = demand(3)
    assert with_tenants(recorded, (), seed=1) is recorded
