"""Hardware profiles: derived from any device file, or read from a measured one."""

from __future__ import annotations

from pathlib import Path

import pytest

from simllm.errors import ProfileError
from simllm.hwmodels.device import device_names, load_device
from simllm.hwmodels.profile import load_profile, profile_names
from simllm.hwmodels.roofline import Efficiency

MEASURED = """\
schema_version: 1
kind: calibrated
name: my-h200
device: h200-sxm
efficiency:
  matrix: {value: 0.71, source: GEMM sweep, valid: "m 16..8192", held_out_error: 0.03}
host: {gpu: NVIDIA H200, driver: 580.159.04}
"""


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    path = tmp_path / "my-h200.yaml"
    path.write_text(MEASURED)
    return path


@pytest.mark.parametrize("name", device_names())
def test_every_device_has_a_datasheet_profile(name):
    profile = load_profile(f"datasheet:{name.upper()}")
    assert (profile.name, profile.kind, profile.device) == (name, "datasheet", load_device(name))
    assert profile.efficiency == Efficiency()
    assert all(coefficient.estimated for coefficient in profile.coefficients.values())
    assert (profile.ops, profile.links, profile.ladder) == (None, (), {})
    assert name in profile_names()


def test_a_device_s_name_gives_what_was_measured_of_it_and_else_its_datasheet():
    assert load_profile("H200-SXM").kind == "calibrated"
    assert load_profile("h100-sxm").kind == "datasheet"
    assert [name for name in profile_names() if ":" in name] == ["datasheet:h200-sxm"]


def test_a_measured_profile_overrides_what_it_measured_and_says_so(measured):
    profile = load_profile(measured)
    assert (profile.name, profile.kind, profile.device.name) == ("my-h200", "calibrated", "h200-sxm")
    assert profile.efficiency == Efficiency(matrix=0.71)
    matrix, hbm = profile.coefficients["matrix"], profile.coefficients["hbm"]
    assert (matrix.estimated, matrix.held_out_error, matrix.valid) == (False, 0.03, "m 16..8192")
    assert hbm.estimated
    assert profile.host["driver"] == "580.159.04"


def test_a_device_file_of_the_user_s_own_is_a_datasheet_profile(tmp_path):
    shipped = Path(__file__).parents[2] / "hwmodels" / "devices" / "h200-sxm.yaml"
    own = tmp_path / "own.yaml"
    own.write_text(shipped.read_text().replace("name: h200-sxm", "name: own"))
    assert (load_profile(own).name, load_profile(own).kind) == ("own", "datasheet")


def test_an_unknown_name_gives_the_nearest_one():
    with pytest.raises(ProfileError, match=r"h200sxm: no such profile or device.*did you mean 'h200-sxm'\?"):
        load_profile("h200sxm")


@pytest.mark.parametrize(
    "before, after, message",
    [
        ("value: 0.71", "value: 1.71", r"efficiency\.matrix\.value: .*less than or equal to 1"),
        ("schema_version: 1", "schema_version: 2", "schema_version: .*1"),
        ("  matrix:", "  matrx:", r"efficiency\.matrx.*: .*'matrix'"),
        ("host:", "hosts:", "host: Field required; hosts: Extra inputs"),
        ("device: h200-sxm", "device: h2000", "h2000: no such device"),
        ("kind: calibrated", "kind: [", "not valid YAML"),
        ("efficiency:\n  matrix:", "efficiency: {}\n#", "holds no measurement"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(measured, before, after, message):
    measured.write_text(MEASURED.replace(before, after))
    with pytest.raises(ProfileError, match=message) as error:
        load_profile(measured)
    assert "\n" not in str(error.value)
