"""The commands below `simllm calibrate`, as a user gets them: files, notes, exit codes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from simllm import cli
from simllm.calibrate import command, host, measure
from simllm.calibrate.command import samples_beside
from simllm.calibrate.fit_command import device_of, ladder_lines
from simllm.calibrate.kernel_command import chosen_case
from simllm.calibrate.plan import make_plan
from simllm.calibrate.report_command import samples_of
from simllm.calibrate.samples import Sample, read_samples, write_samples
from simllm.calibrate.sweep import Sweep
from simllm.errors import CalibrationError
from simllm.hwmodels import profile as profiles
from simllm.hwmodels.device import load_device
from simllm.hwmodels.op_model import form_of
from simllm.hwmodels.op_point import work
from simllm.hwmodels.profile import load_profile
from simllm.units import US

SHIPPED = Path(profiles.__file__).parent / "profiles" / "h200-sxm.samples.parquet"
GPU = {"name": "NVIDIA H200", "date": "2026-01-01"}


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `simllm calibrate ...` and returns (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["simllm", "calibrate", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture
def softmax_samples(tmp_path) -> Path:
    """Fifty samples that follow their formula."""
    device, points = load_device("h200-sxm"), make_plan(["softmax"], ["triton"])
    form = form_of("softmax")
    values = {coefficient.name: coefficient.initial for coefficient in form.coefficients}
    times = form.seconds(form.features(points, device), values)
    rows = [
        Sample(point, float(time_s) / US, 0.0, 20, False, work(point).flops, work(point).hbm_bytes)
        for point, time_s in zip(points, times, strict=True)
    ]
    path = tmp_path / "gpu.samples.parquet"
    write_samples(path, rows, GPU)
    return path


def no_gpu(*arguments, **options):
    raise FileNotFoundError("nvidia-smi")


@pytest.mark.parametrize("arguments", [("-o", "p.yaml"), ("kernel", "gemm")])
def test_without_a_gpu_there_is_one_line_and_exit_code_two(run, monkeypatch, tmp_path, arguments):
    monkeypatch.setattr(host.subprocess, "run", no_gpu)
    monkeypatch.chdir(tmp_path)
    code, _, error = run(*arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: calibrating needs an NVIDIA GPU")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "-o/--output: name the profile"),
        (("-o", "p.yaml", "--budget", "soon"), "--budget: expected a duration"),
        (("-o", "p.yaml", "--ops", "gem"), "did you mean 'gemm'"),
        (("-o", "p.yaml", "--backend", "tritn"), "did you mean 'triton'"),
        (("fit", "none.parquet", "-o", "p.yaml"), "no samples there"),
        (("fit", "none.parquet", "-o", "."), "is a folder; name a file"),
        (("fit", "none.parquet", "-o", "nowhere/p.yaml"), "there is no folder nowhere"),
        (("report", "none.yaml", "-o", "r.html"), "none.yaml"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_two(run, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(*arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert expected in error
    assert list(tmp_path.iterdir()) == []


def test_fit_prints_errors_and_writes_a_profile_that_loads(run, softmax_samples, tmp_path):
    code, out, _ = run("fit", softmax_samples, "-o", tmp_path / "gpu.yaml")
    assert code == 0
    assert "softmax" in out
    profile = load_profile(tmp_path / "gpu.yaml")
    assert (profile.kind, profile.name, profile.device.name) == ("calibrated", "gpu", "h200-sxm")
    assert profile.ops is not None
    assert profile.ops.has("softmax", "triton", "bf16")


def test_the_ladder_is_printed_in_terabytes_per_second_and_microseconds():
    lines = ladder_lines(read_samples(SHIPPED)[0], load_device("h200-sxm"))
    shown = {line[:18].strip(): line[18:].split()[:2] for line in lines}
    # An H200 streams from HBM at 4 to 4.8 TB/s, and 132 SMs read 128 B a clock of 1.98 GHz: 33.4 TB/s.
    assert 4.0 < float(shown["hbm read"][0]) < 4.8
    assert 32.0 < float(shown["sram"][0]) < 33.5
    assert shown["graph gap"][1] == "us"


def test_a_file_that_is_no_profile_is_not_replaced(run, softmax_samples, tmp_path):
    (tmp_path / "notes.yaml").write_text("groceries: [milk]")
    code, _, error = run("fit", softmax_samples, "-o", tmp_path / "notes.yaml")
    assert (code, error.count("\n")) == (2, 1)
    assert (tmp_path / "notes.yaml").read_text() == "groceries: [milk]"


def test_a_gpu_without_a_device_file_is_told_before_anything_is_measured(run, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "describe_host", lambda: {"name": "NVIDIA Unheard-of"})
    code, _, error = run("-o", tmp_path / "p.yaml")
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: NVIDIA Unheard-of: give --device, one of")
    assert list(tmp_path.iterdir()) == []


def test_fitting_twice_gives_the_same_bytes(run, softmax_samples, tmp_path):
    texts = []
    for name in ("a.yaml", "b.yaml"):
        run("fit", softmax_samples, "-o", tmp_path / name, "--name", "gpu")
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1]


def test_a_report_is_written_beside_its_profile(run, softmax_samples, tmp_path):
    pytest.importorskip("plotly")
    run("fit", softmax_samples, "-o", tmp_path / "gpu.yaml")
    code, _, _ = run("report", tmp_path / "gpu.yaml", "-o", tmp_path / "gpu.html")
    assert code == 0
    assert "softmax triton bf16" in (tmp_path / "gpu.html").read_text()


def test_a_shipped_profile_is_reported_by_its_name(run, tmp_path):
    pytest.importorskip("plotly")
    assert run("report", "h200-sxm", "-o", tmp_path / "h200.html")[0] == 0
    assert samples_of("H200-SXM") == SHIPPED


def test_a_report_without_plotly_names_what_to_install(run, softmax_samples, tmp_path, monkeypatch):
    run("fit", softmax_samples, "-o", tmp_path / "gpu.yaml")
    for name in [
        name for name in sys.modules if name.startswith("plotly") or name.endswith("calibrate.report")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    code, _, error = run("report", tmp_path / "gpu.yaml", "-o", tmp_path / "gpu.html")
    assert (code, error) == (2, "error: reports need plotly: pip install 'simllm[report]'\n")


def test_the_plan_is_shown_with_its_length(run):
    code, out, _ = run("plan")
    assert code == 0
    assert out.splitlines()[-1].split() == [str(len(make_plan())), "points", "in", "all"]


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(name in out for name in ("fit", "links", "report", "plan", "kernel", "budget"))


def test_samples_lie_beside_their_profile():
    assert samples_beside(Path("a/h200.yaml")) == Path("a/h200.samples.parquet")


@pytest.mark.parametrize(
    ("gpu", "device"),
    [
        ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
    ],
)
def test_the_device_follows_from_the_gpus_name(gpu, device):
    assert device_of(gpu) == device


@pytest.mark.parametrize("gpu", ["NVIDIA A100-SXM4", "Unknown GPU", ""])
def test_a_gpu_that_could_be_several_devices_or_none_asks_for_one(gpu):
    with pytest.raises(CalibrationError, match="give --device, one of"):
        device_of(gpu)


class Case(NamedTuple):
    kernel: str
    name: str


CASES = (Case("gemm", "gemm bf16 64x64"), Case("gemm", "gemm fp8 64x64"), Case("norm", "norm bf16"))


def test_a_kernel_is_chosen_by_name_and_by_part_of_its_variant():
    assert chosen_case(CASES, "gemm", "").name == "gemm bf16 64x64"
    assert chosen_case(CASES, "gemm", "fp8").name == "gemm fp8 64x64"


@pytest.mark.parametrize(
    ("name", "variant", "expected"),
    [
        ("gemn", "", "no kernel 'gemn'; did you mean 'gemm'"),
        ("gemm", "int4", "--variant 'int4': gemm has gemm bf16 64x64, gemm fp8 64x64"),
    ],
)
def test_a_kernel_that_is_not_there_is_answered_with_those_that_are(name, variant, expected):
    with pytest.raises(CalibrationError, match=expected):
        chosen_case(CASES, name, variant)


def test_samples_of_another_gpu_are_not_mixed_in(softmax_samples):
    measure.check_same_gpu(softmax_samples, "NVIDIA H200")
    with pytest.raises(CalibrationError, match="holds samples of 'NVIDIA H200', and this is 'NVIDIA B200'"):
        measure.check_same_gpu(softmax_samples, "NVIDIA B200")


def test_the_end_of_a_sweep_says_what_was_noisy_refused_and_left_out():
    whole = measure.describe_sweep(Sweep(100, 100, 60, 2, 1), Path("s.parquet"))
    assert whole == "s.parquet: 100 of 100 points, 60 of them new, 2 noisy, 1 refused by their kernels"
    part = measure.describe_sweep(Sweep(100, 35, 35), Path("s.parquet"))
    assert "35 of 100 points" in part
    assert "budget spent: 35% of the plan is measured; on an H200, 35% gave" in part


def test_ctrl_c_ends_with_130_and_says_where_the_rows_are(monkeypatch, tmp_path, capsys):
    """A stand-in for the GPU measures two points, then the user interrupts."""
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    from simllm.calibrate import gpu
    from simllm.calibrate.timer import Measurement

    class Interrupted:
        num_left = 2

        def __call__(self, point):
            if self.num_left == 0:
                raise KeyboardInterrupt
            self.num_left -= 1
            return Measurement(5e-6, 0.01, 10)

    monkeypatch.setattr(gpu, "GpuMeasurer", Interrupted)
    with pytest.raises(measure.typer.Exit) as end:
        measure.measure_points(make_plan(["rope"]), tmp_path / "s.parquet", host=GPU, budget_s=1e9)
    assert end.value.exit_code == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    assert len(read_samples(tmp_path / "s.parquet")[0]) == 2


def test_other_commands_do_not_load_what_fitting_needs():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, simllm.cli; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "simllm.cli" in loaded
    assert not {name for name in loaded if name.startswith(("simllm.calibrate", "torch", "triton", "plotly"))}


def test_the_shipped_samples_are_there():
    assert importlib.util.find_spec("simllm.calibrate") is not None
    assert len(read_samples(SHIPPED)[0]) > 4000
