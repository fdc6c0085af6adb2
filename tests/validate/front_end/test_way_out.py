"""The way out: its law by hand, and recovered."""

from __future__ import annotations

import numpy as np
import pytest

from simllm.sim.validate.front_end.bootstrap import equal_weights
from simllm.sim.validate.front_end.client_run import ClientRun
from simllm.sim.validate.front_end.way_out import fit_way_out, way_out_of

from .made import client_run, step

# Four steps, ending at 1, 2, 3, 4 s; of three requests: first tokens in the 1st, 1st and 2nd, last in the
# 3rd, 1st and 4th. Outputs of the steps: 2, 2, 2, 1.
STEPS = [step(1, at=(end - 0.5, end)) for end in (1.0, 2.0, 3.0, 4.0)]
FIRST, LAST = [0, 0, 1], [2, 0, 3]
# 1 ms, 0.1 ms an output, 0.3 ms a first token, 0.2 ms a last one.
FIRST_MS, LAST_MS = [2.0, 2.0, 1.5], [1.4, 2.0, 1.3]


def run() -> ClientRun:
    return client_run(
        STEPS,
        first=FIRST,
        last=LAST,
        first_token_at=[1 + place + ms / 1e3 for place, ms in zip(FIRST, FIRST_MS, strict=True)],
        ended_at=[1 + place + ms / 1e3 for place, ms in zip(LAST, LAST_MS, strict=True)],
    )


def test_a_delay_is_told_with_what_its_step_gave() -> None:
    found = way_out_of(run())
    # The second request's only token counts once.
    assert found.request.tolist() == [0, 1, 2, 0, 2]
    assert found.is_last.tolist() == [0, 0, 0, 1, 1]
    assert found.causes.tolist() == [[1, 2, 2, 1], [1, 2, 2, 1], [1, 2, 1, 0], [1, 2, 0, 1], [1, 1, 0, 1]]
    assert found.delay_s * 1e3 == pytest.approx([2.0, 2.0, 1.5, 1.4, 1.3])


def test_the_constants_are_those_of_the_law() -> None:
    found = fit_way_out([way_out_of(run())], equal_weights([3]))
    assert found * 1e3 == pytest.approx([1.0, 0.1, 0.3, 0.2])


def test_tokens_after_the_end_of_the_record_do_not_count() -> None:
    cut = client_run(
        STEPS[:2], first=FIRST, last=LAST, first_token_at=[1.0, 1.0, 2.0], ended_at=[3.0, 1.0, 4.0]
    )
    assert way_out_of(cut).is_last.tolist() == [0, 0, 0]


def test_no_constant_is_below_zero() -> None:
    made = way_out_of(run())
    later = made._replace(delay_s=5e-3 - 1e-3 * made.causes[:, 2])  # first tokens make it shorter
    assert (fit_way_out([later], [np.ones(3)]) >= 0).all()
