"""Without a GPU, or without torch, there is one clear line and exit code 2."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError

import pytest

from simllm.calibrate import host
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


def test_a_version_that_is_too_old_is_named_with_the_one_that_is_needed(monkeypatch):
    monkeypatch.setattr(host, "version", {"torch": "2.11.0+cu130", "triton": "3.5.1"}.__getitem__)
    with pytest.raises(CalibrationError, match=r"needs triton 3.6 or newer, this is 3.5.1: pip install"):
        host.package_versions()


@pytest.mark.parametrize("triton", ["3.6.0", "3.10.2", "4.0.0a1+git"])
def test_versions_compare_as_numbers(monkeypatch, triton):
    monkeypatch.setattr(host, "version", {"torch": "2.11.0", "triton": triton}.__getitem__)
    assert host.package_versions()["triton"] == triton
