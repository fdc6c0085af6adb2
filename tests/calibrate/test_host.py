"""Without a GPU, or without torch, there is one clear line and exit code 2."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError

import pytest

from simllm.calibrate import __main__ as command
from simllm.calibrate import host
from simllm.calibrate.timer import summarise
from simllm.errors import CalibrationError

ANSWER = "NVIDIA H200, 580.1, 345 MHz, 3201 MHz, 1980 MHz, 76.3 W, 700.00 W, 31, 143771 MiB\n"


def answer(monkeypatch, text):
    finished = subprocess.CompletedProcess([], 0, stdout=text)
    monkeypatch.setattr(host.subprocess, "run", lambda *args, **options: finished)


def no_such_command(*args, **options):
    raise FileNotFoundError("nvidia-smi")


def test_a_gpu_is_described_by_name_driver_clocks_and_power(monkeypatch):
    answer(monkeypatch, ANSWER)
    gpu = host.query_gpu()
    assert (gpu["name"], gpu["clocks.max.sm"], gpu["power.limit"]) == ("NVIDIA H200", "1980 MHz", "700.00 W")


def test_a_host_without_a_driver_is_one_line(monkeypatch):
    monkeypatch.setattr(host.subprocess, "run", no_such_command)
    with pytest.raises(CalibrationError, match="needs an NVIDIA GPU, but nvidia-smi failed: nvidia-smi"):
        host.query_gpu()


def test_an_answer_of_another_shape_is_one_line(monkeypatch):
    answer(monkeypatch, "No devices were found\n")
    with pytest.raises(CalibrationError, match="'No devices were found' instead of 9 values"):
        host.query_gpu()


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(host, "version", missing)
    with pytest.raises(CalibrationError, match=r"needs torch: pip install 'simllm\[gpu\]'"):
        host.package_versions()


def test_a_sweep_without_a_gpu_ends_with_exit_code_two(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(host.subprocess, "run", no_such_command)
    monkeypatch.setattr("sys.argv", ["calibrate", "sweep", "-o", str(tmp_path / "s.parquet")])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_fitting_no_samples_ends_with_exit_code_two(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["calibrate", "fit", str(tmp_path / "s.parquet"), "-o", "f.yaml"])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert "no samples there" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("1h", 3600.0), ("45", 45.0)])
def test_a_budget_is_read_with_its_unit(text, seconds):
    assert command.parse_duration(text) == seconds


def test_a_measurement_is_the_median_per_launch_and_its_quartiles_apart():
    result = summarise([1.0, 2.0, 3.0, 4.0, 5.0], launches=2)
    # Median 3 of two launches; quartiles 2 and 4.
    assert (result.time_s, result.num_runs) == (1.5, 5)
    assert result.spread == pytest.approx(2 / 3)
    assert result.is_noisy
