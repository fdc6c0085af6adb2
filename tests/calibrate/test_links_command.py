"""`simllm calibrate links`: one line for what a host lacks, and only the links of a profile change."""

from __future__ import annotations

import pytest
import yaml

from simllm.calibrate import links_command, links_host
from simllm.calibrate.links_plan import LinkPoint, message_sizes
from simllm.calibrate.links_samples import LinkSample, read_link_samples, write_link_samples
from simllm.errors import CalibrationError, ProfileError
from simllm.hwmodels.profile import load_profile
from simllm.units import KIB, MIB

HOST = {"name": "NVIDIA H200", "date": "2026-11-21", "nccl": "2.28.9", "gpu_links": "NV18", "torch": "2.11"}
OLD = {
    "schema_version": 1,
    "kind": "calibrated",
    "name": "mine",
    "device": "h200-sxm",
    "host": {"name": "NVIDIA H200", "date": "2026-01-01", "links_date": "2025-01-01"},
    "efficiency": {"hbm": {"value": 0.9, "source": "measured"}},
}


@pytest.fixture
def profile(tmp_path):
    """A place for a profile with samples beside it: 10 us and 100 GB/s between 2 GPUs."""
    points = [LinkPoint("all_reduce", "nccl", 2, "graph", size) for size in message_sizes(KIB, MIB)]
    samples = [LinkSample(point, time_us=10 + point.num_bytes / 1e5, num_runs=9) for point in points]
    write_link_samples(tmp_path / "mine.links.samples.parquet", samples, HOST)
    return tmp_path / "mine.yaml"


def fit(path) -> None:
    links_command.links_command(path, fit_only=True)


def test_fitting_makes_a_profile_of_the_gpu_that_was_measured(profile, capsys):
    fit(profile)
    loaded = load_profile(profile)
    assert (loaded.name, loaded.device.name, loaded.host["links_nccl"]) == ("mine", "h200-sxm", "2.28.9")
    entry = loaded.links[0]
    assert entry.latency_s.value == pytest.approx(10e-6)
    assert entry.regimes[0].bytes_per_s.value == pytest.approx(100e9)
    printed = capsys.readouterr().out.splitlines()[1]
    assert printed.split()[:8] == ["all_reduce", "nccl", "graph", "2", "10.00", "us", "100.0", "GB/s"]


def test_only_the_links_of_a_profile_change(profile):
    profile.write_text(yaml.safe_dump(OLD))
    fit(profile)
    written = yaml.safe_load(profile.read_text())
    assert written.pop("links")
    host = {"links_date": "2026-11-21", "links_gpu_links": "NV18", "links_nccl": "2.28.9"}
    assert written == {**OLD, "host": {"name": "NVIDIA H200", "date": "2026-01-01", **host}}


def test_the_same_samples_give_the_same_bytes(profile):
    fit(profile)
    first = profile.read_bytes()
    fit(profile)
    assert profile.read_bytes() == first


def test_what_is_no_profile_stays_as_it_is(profile):
    profile.write_text("kind: nonsense\n")
    with pytest.raises(ProfileError, match=r"mine\.yaml"):
        fit(profile)
    assert profile.read_text() == "kind: nonsense\n"


def test_without_samples_the_line_says_how_to_get_them(tmp_path):
    with pytest.raises(CalibrationError, match="calibrate links -o"):
        fit(tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def test_a_table_of_something_else_is_refused(profile):
    samples = profile.with_name("mine.links.samples.parquet")
    samples.write_text("not a table")
    with pytest.raises(CalibrationError, match="no table of link samples"):
        fit(profile)


def test_samples_read_back_as_they_were_written(profile):
    samples, host = read_link_samples(profile.with_name("mine.links.samples.parquet"))
    assert host == HOST
    assert samples[0] == LinkSample(LinkPoint("all_reduce", "nccl", 2, "graph", 1024), 10.01024, num_runs=9)


def test_numbers_of_gpus_that_are_none_are_one_line():
    with pytest.raises(CalibrationError, match="--gpus: expected numbers by comma like 2,4, got '2,x'"):
        links_command.parse_numbers("2,x")


class FakeCuda:
    """A host with four GPUs, of which GPU 3 reaches none of the others."""

    @staticmethod
    def device_count() -> int:
        return 4

    @staticmethod
    def can_device_access_peer(one: int, other: int) -> bool:
        return 3 not in (one, other)


@pytest.fixture
def _four_gpus(monkeypatch):
    torch = pytest.importorskip("torch", reason="asks torch for the GPUs")
    monkeypatch.setattr(links_host, "describe_host", lambda: HOST)
    monkeypatch.setattr(torch, "cuda", FakeCuda)


@pytest.mark.usefixtures("_four_gpus")
def test_all_powers_of_two_that_the_host_has_are_measured():
    assert links_host.check_gpu_counts((), needs_peer_access=False) == (2, 4)
    assert links_host.check_gpu_counts((3, 2), needs_peer_access=True) == (2, 3)


@pytest.mark.usefixtures("_four_gpus")
def test_more_gpus_than_there_are_is_one_line():
    with pytest.raises(CalibrationError, match="--gpus 2, 8: this host has 4; choose from 2 to that"):
        links_host.check_gpu_counts((2, 8), needs_peer_access=False)


@pytest.mark.usefixtures("_four_gpus")
def test_gpus_that_cannot_reach_each_other_are_one_line_with_the_way_out():
    with pytest.raises(CalibrationError, match=r"GPU 0 cannot reach the memory of GPU 3.*--implementations"):
        links_host.check_gpu_counts((4,), needs_peer_access=True)


@pytest.mark.parametrize(("available", "counts"), [(1, ()), (2, (2,)), (6, (2, 4)), (8, (2, 4, 8))])
def test_counts_double_up_to_what_there_is(available, counts):
    assert links_host.default_gpu_counts(available) == counts
