"""Fixtures: the run made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simllm.sim.outcome.results import Result

from .handmade import make_result


@pytest.fixture
def result() -> Result:
    """The run made by hand, with its steps."""
    return make_result()


@pytest.fixture
def build() -> Callable[..., Result]:
    """Builds the run made by hand with another SLO, or without steps."""
    return make_result
