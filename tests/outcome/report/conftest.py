"""Fixtures: the run made by hand and small simulated ones, as folders and as a report reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sim.small import scenario

from simllm.sim.outcome.meta import Slo
from simllm.sim.outcome.report.run_folder import Run, read_runs
from simllm.sim.run import simulate

from ..handmade import make_result

Simulated = Callable[..., Path]


@pytest.fixture
def hand_folder(tmp_path: Path) -> Path:
    """The run made by hand with an objective that the request of 0.5 s TTFT breaks."""
    folder = tmp_path / "hand"
    make_result(slo=Slo(ttft_ms=450.0)).save(folder)
    return folder


@pytest.fixture
def hand(hand_folder: Path) -> Run:
    """The same, read."""
    (run,) = read_runs([hand_folder])
    return run


@pytest.fixture
def unrecorded(tmp_path: Path) -> Path:
    """The run made by hand without its steps."""
    folder = tmp_path / "unrecorded"
    make_result(record_steps=False).save(folder)
    return folder


@pytest.fixture
def simulated(tmp_path: Path) -> Simulated:
    """Simulates the small scenario with overrides into a folder of this name, which is returned."""

    def simulate_into(name: str, *overrides: str) -> Path:
        simulate(scenario(*overrides)).save(tmp_path / name)
        return tmp_path / name

    return simulate_into
