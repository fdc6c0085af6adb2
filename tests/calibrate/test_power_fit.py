"""Fits of the power limit recover known constants, tell their error on sequences never seen, and repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simllm.calibrate.power_fit import fit_power, full_clock_ms, play
from simllm.calibrate.power_plan import GRAPHS, SEQUENCES
from simllm.calibrate.power_samples import PowerSample
from simllm.errors import CalibrationError
from simllm.hwmodels.power import PowerLimit, PowerState

TRUE = PowerLimit(
    full_clock_ratio=0.85, other_slowdown=0.08, reaction_s=0.04, busy_headroom=0.3, idle_headroom=0.8
)
# Times at full clock [ms] and matrix shares. Rested, the clock stays full for 40 ms x ln 1.8 = 24 ms.
STEPS = {"p2048": (20.0, 0.92), "p512": (5.0, 0.92), "d16": (5.5, 0.0), "d64": (7.9, 0.0)}
NAMES = ("burst8", "mix50", "mix75", "p512", "mix50b", "pauses")


def samples(*, noise: float = 0.0, seed: int = 0) -> list[PowerSample]:
    """Returns steps as a GPU with the true constants would take them."""
    draw = np.random.default_rng(seed)
    kinds = {graph.name: graph for graph in GRAPHS}
    rows = []
    for name in NAMES:
        state = PowerState(TRUE)
        for place, (graph, pause_s) in enumerate(SEQUENCES[name][:200]):
            full_ms, share = STEPS[graph]
            state.rest(pause_s)
            matrix_s, other_s = full_ms * share / 1e3, full_ms * (1 - share) / 1e3
            time_ms = full_ms + state.added_s(matrix_s, other_s) * 1e3
            rows.append(
                PowerSample(
                    name, place, graph, kinds[graph].kind, kinds[graph].num_tokens, share, pause_s, 0.0,
                    time_ms * float(np.exp(noise * draw.standard_normal())), 0.0, 0.0,
                )
            )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def exact():
    return fit_power(samples(), "a GPU")


def test_known_constants_come_back(exact):
    assert exact.full_clock_ratio == pytest.approx(0.85, rel=1e-3)
    assert exact.other_slowdown == pytest.approx(0.08, rel=1e-2)
    assert exact.reaction_s == pytest.approx(0.04, rel=1e-2)
    assert exact.busy_headroom == pytest.approx(0.3, rel=1e-2)
    assert exact.idle_headroom == pytest.approx(0.8, rel=1e-2)


def test_constants_that_explain_everything_have_no_error_on_sequences_left_out(exact):
    assert exact.held_out.num_sequences == len(NAMES)
    assert exact.held_out.step < 1e-3
    assert exact.held_out.sequence < 1e-3


def test_noise_shows_in_the_held_out_error():
    # The median of |normal| is 0.67 of its deviation; the fastest steps, taken for full clock, add some.
    noisy = fit_power(samples(noise=0.01), "a GPU")
    assert 0.005 < noisy.held_out.step < 0.03
    assert noisy.full_clock_ratio == pytest.approx(0.85, rel=0.03)


def test_the_same_samples_give_the_same_constants(exact):
    assert fit_power(samples(), "a GPU") == exact


def test_every_number_has_six_digits_at_most(exact):
    numbers = exact.model_dump(exclude={"source", "num_samples", "held_out"}).values()
    assert all(value == float(f"{value:.6g}") for value in numbers)


def test_sequences_of_decodes_alone_say_nothing(exact):
    decodes = [replace(row, sequence="d64") for row in samples() if row.graph == "d64" and row.place < 60]
    slow = [replace(row, time_ms=2 * row.time_ms) for row in decodes]
    assert fit_power(samples() + slow, "a GPU") == exact


def test_too_few_sequences_are_one_line():
    two = [row for row in samples() if row.sequence in NAMES[:2]]
    with pytest.raises(CalibrationError, match="needs 3 sequences with prefill steps, got 2"):
        fit_power(two, "a GPU")


def test_full_clock_is_the_fastest_steps():
    assert full_clock_ms(samples()) == pytest.approx(
        {name: full for name, (full, _) in STEPS.items()}, rel=1e-3
    )


def test_played_steps_take_the_time_that_the_samples_took():
    times = play(TRUE, samples())
    rows = [row for row in samples() if row.sequence == "pauses"]
    assert times["pauses"] == pytest.approx([row.time_ms / 1e3 for row in rows], rel=1e-3)
