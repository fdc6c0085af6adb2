"""A fit finds the front end that recorded runs were made with."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from simllm.hwmodels.front_end_profile import FrontEndProfile
from simllm.sim.validate.front_end.fit import fit_front_end
from simllm.sim.world.front_end import FrontEndTimes

from .made import played

TRUE = FrontEndTimes(
    request_s=0.3e-3, prompt_token_s=0.2e-6, in_s=0.8e-3, hold_s=0.5e-3,
    out_s=0.4e-3, token_s=20e-6, first_token_s=0.4e-3, last_token_s=0.25e-3, turnaround_s=0.1e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def fitted() -> FrontEndProfile:
    """The fit to two open runs, lone requests and bursts in turn, and to two closed loops."""
    rng = np.random.default_rng(5)
    open_runs = []
    for _ in range(2):
        rows = []
        for begin in range(60):
            for _ in range(rng.integers(1, 6)):
                sent_at = begin * 0.1 + float(rng.uniform(0, 0.5e-3))
                rows.append((sent_at, int(rng.integers(16, 500)), int(rng.integers(1, 40))))
        open_runs.append(played(TRUE, sorted(rows)))
    closed = [(0.0, 64, int(rng.integers(5, 40))) for _ in range(60)]
    loops = [played(TRUE, closed, num_clients=clients) for clients in (3, 8)]
    return fit_front_end([*open_runs, *loops])


def test_every_constant_is_recovered_and_lies_in_its_interval(fitted: FrontEndProfile) -> None:
    true = asdict(TRUE)
    assert list(fitted.constants.items()) == list(true)
    for name, found in fitted.constants.items().items():
        assert found.low <= found.value <= found.high, name
        assert found.value == pytest.approx(true[name], rel=0.1), name
