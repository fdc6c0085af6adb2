"""`simllm calibrate power`: a line for what a host lacks, and only the power section of a profile changes."""

from __future__ import annotations

import pytest
import yaml

from simllm.calibrate.fitted_file import kept_sections
from simllm.calibrate.power_command import half_fallen_s, power_command, source_of
from simllm.calibrate.power_plan import GRAPHS, SEQUENCES
from simllm.calibrate.power_samples import PowerSample, read_power_samples, write_power_samples
from simllm.errors import CalibrationError, ProfileError
from simllm.hwmodels.power import PowerLimit, PowerState
from simllm.hwmodels.profile import load_profile
from simllm.hwmodels.profile_file import read_calibrated

HOST = {"name": "NVIDIA H200", "date": "2026-11-21", "driver_version": "580.1", "power_limit": "700.00 W"}
OLD = {
    "schema_version": 1,
    "kind": "calibrated",
    "name": "mine",
    "device": "h200-sxm",
    "host": {"name": "NVIDIA H200", "date": "2026-01-01"},
    "efficiency": {"hbm": {"value": 0.9, "source": "measured"}},
}
LIMIT = PowerLimit(0.85, 0.08, 0.04, 0.3, 0.8)


def sequence(name: str, turns: str) -> list[PowerSample]:
    """Returns steps of 10 ms: p of prefill, d of decodes."""
    state, rows = PowerState(LIMIT), []
    for place, letter in enumerate(turns):
        share = 0.92 if letter == "p" else 0.0
        time_ms = 10 + 1e3 * state.added_s(0.01 * share, 0.01 * (1 - share))
        kind = "prefill" if letter == "p" else "decode"
        rows.append(PowerSample(name, place, letter, kind, 8, share, 0.0, 0.0, time_ms, 700.0, 1980.0))
    return rows


@pytest.fixture
def profile(tmp_path):
    """A place for a profile with samples beside it."""
    rows = sequence("long", "p" * 50) + sequence("mixed", "pd" * 40) + sequence("bursts", "ppppdddddd" * 8)
    write_power_samples(tmp_path / "mine.power.samples.parquet", rows, HOST)
    return tmp_path / "mine.yaml"


def fit(path) -> None:
    power_command(path, fit_only=True)


def test_fitting_makes_a_profile_of_the_gpu_that_was_measured(profile, capsys):
    fit(profile)
    loaded = load_profile(profile)
    assert (loaded.name, loaded.device.name) == ("mine", "h200-sxm")
    assert loaded.power.full_clock_ratio == pytest.approx(0.85, rel=0.01)
    # 1 / 0.85 is 17.6 % longer.
    assert "matrix work with the clock settled  +17.6%" in capsys.readouterr().out


def test_only_the_power_section_of_a_profile_changes(profile):
    profile.write_text(yaml.safe_dump(OLD))
    fit(profile)
    written = yaml.safe_load(profile.read_text())
    power = written.pop("power")
    assert written == OLD
    assert power["source"] == "NVIDIA H200, driver 580.1, limit 700.00 W, 2026-11-21"
    assert power["num_samples"] == 50 + 80 + 80


def test_the_same_samples_give_the_same_bytes(profile):
    fit(profile)
    first = profile.read_bytes()
    fit(profile)
    assert profile.read_bytes() == first


def test_a_new_fit_of_operations_keeps_the_power_limit(profile):
    fit(profile)
    kept, _ = kept_sections(read_calibrated(profile))
    assert kept == {"power": yaml.safe_load(profile.read_text())["power"]}


def test_what_is_no_profile_stays_as_it_is(profile):
    profile.write_text("kind: nonsense\n")
    with pytest.raises(ProfileError, match=r"mine\.yaml"):
        fit(profile)
    assert profile.read_text() == "kind: nonsense\n"


def test_without_samples_the_line_says_how_to_get_them(tmp_path):
    with pytest.raises(CalibrationError, match="calibrate power -o"):
        fit(tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def test_a_table_of_something_else_is_refused(profile):
    profile.with_name("mine.power.samples.parquet").write_text("not a table")
    with pytest.raises(CalibrationError, match="no table of power samples"):
        fit(profile)


def test_without_a_gpu_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CalibrationError, match="needs an NVIDIA GPU"):
        power_command(tmp_path / "mine.yaml")
    assert list(tmp_path.iterdir()) == []


def test_samples_read_back_as_they_were_written(profile):
    rows, host = read_power_samples(profile.with_name("mine.power.samples.parquet"))
    assert host == HOST
    assert rows[:50] == sequence("long", "p" * 50)


def test_a_host_that_tells_less_is_named_by_what_it_tells():
    assert source_of({"name": "NVIDIA H200", "date": "2026-11-21"}) == "NVIDIA H200, 2026-11-21"


def test_the_clock_is_half_fallen_when_the_level_is_at_one_half():
    # From -0.8 towards 1, 0.5 is reached after 40 ms x ln(1.8 / 0.5) = 51.2 ms.
    state = PowerState(LIMIT)
    assert half_fallen_s(LIMIT, 0.8) == pytest.approx(0.0512, abs=1e-4)
    state.added_s(half_fallen_s(LIMIT, 0.8), 0)
    assert state.level == pytest.approx(0.5)


def test_every_sequence_runs_graphs_that_are_there_and_begins_with_none_but_its_rest():
    names = {graph.name for graph in GRAPHS}
    for turns in SEQUENCES.values():
        assert {turn.graph for turn in turns} <= names
    # Each graph must run where the clock is full: alone, or first.
    assert {turns[0].graph for turns in SEQUENCES.values()} >= {"p2048", "p512", "d16", "d64", "d128"}
