"""The progress bar: silent off a terminal, seldom on one."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from simllm.sim.outcome import progress
from simllm.sim.outcome.progress import ProgressBar


def _run_on(console: Console, monkeypatch: pytest.MonkeyPatch, num_updates: int) -> None:
    clock = iter(range(1_000_000))
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock) / 100)  # each look at it takes 10 ms
    with ProgressBar(num_updates, console) as bar:
        for done in range(num_updates):
            bar.update(10.0 * done, done)


def test_nothing_is_written_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    _run_on(Console(file=written), monkeypatch, 50)
    assert written.getvalue() == ""


def test_a_terminal_sees_time_requests_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    _run_on(Console(file=written, force_terminal=True, width=120), monkeypatch, 12)
    # the eleventh look, 0.11 s after the first, is the first to be shown: 100 s in 0.1 s or so
    assert "90.0 s simulated" in written.getvalue()
    assert "9/12" in written.getvalue()
    assert "900 times real time" in written.getvalue()


def test_a_terminal_is_written_to_ten_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    _run_on(Console(file=written, force_terminal=True, width=120), monkeypatch, 200)  # 2 s
    assert written.getvalue().count("s simulated") <= 22
