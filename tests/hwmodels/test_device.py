"""The shipped device files: every figure has a source, and they obey the laws of a memory hierarchy."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from simllm.errors import ProfileError
from simllm.hwmodels import device as device_module
from simllm.hwmodels.device import DeviceSpec, device_names, load_device

EXPECTED_NAMES = (
    "a100-40gb", "a100-80gb", "a10g", "a800-80gb", "ascend-910b", "b200", "gb200", "h100-pcie", "h100-sxm",
    "h20", "h200-sxm", "h800-sxm", "l40s", "mi300x", "rtx-3090", "rtx-4090",
)  # fmt: skip

every_device = pytest.mark.parametrize("name", device_names())


def write_device(path: Path, **changes: object) -> Path:
    """Writes the shipped A100 with some fields changed."""
    shipped = Path(device_module.__file__).parent / "devices" / "a100-80gb.yaml"
    figures = yaml.safe_load(shipped.read_text())
    path.write_text(yaml.safe_dump({**figures, **changes}))
    return path


def test_the_shipped_devices_are_these() -> None:
    assert device_names() == EXPECTED_NAMES


@every_device
def test_a_shipped_device_is_named_as_its_file(name: str) -> None:
    assert load_device(name).name == name


@every_device
def test_every_figure_has_a_source_or_is_marked_estimated(name: str) -> None:
    device = load_device(name)
    rates = {f"matrix_flops_per_s.{dtype}" for dtype in device.matrix_flops_per_s}
    plain = {field.name for field in fields(DeviceSpec)} - {
        "name", "matrix_flops_per_s", "estimated", "sources",
    }  # fmt: skip
    missing = {name for name in plain if getattr(device, name) is None}
    assert set(device.sources) == rates | plain - missing
    assert all(len(source) > 10 for source in device.sources.values())
    assert device.estimated <= set(device.sources)


@every_device
def test_the_nearer_memory_is_the_faster(name: str) -> None:
    device = load_device(name)
    assert device.hbm_bytes_per_s < device.l2_bytes_per_s < device.sram_bytes_per_s
    assert device.hbm_bytes > device.l2_bytes > device.sram_bytes_per_sm


@every_device
def test_narrower_numbers_are_never_slower(name: str) -> None:
    rates = load_device(name).matrix_flops_per_s
    order = [rates[dtype] for dtype in ("tf32", "bf16", "fp8", "fp4") if dtype in rates]
    assert order == sorted(order)
    assert rates["fp16"] == rates["bf16"] <= rates["int8"]


@every_device
def test_matrix_units_beat_vector_units(name: str) -> None:
    device = load_device(name)
    assert device.matrix_flops_per_s["bf16"] > device.vector_flops_per_s


@every_device
def test_the_host_is_farther_than_the_peers_and_both_farther_than_the_memory(name: str) -> None:
    device = load_device(name)
    links = (device.pcie_bytes_per_s_per_direction, device.nvlink_bytes_per_s_per_direction)
    known = [rate for rate in links if rate is not None]
    assert known == sorted(known)
    assert max(known) < device.hbm_bytes_per_s


def test_sram_of_an_a100_is_108_sms_of_128_bytes_a_clock() -> None:
    device = load_device("a100-80gb")
    assert device.num_sms * 128 * device.clock_hz == pytest.approx(19.5e12, rel=0.001)
    assert device.sram_bytes_per_s == pytest.approx(19.5e12, rel=0.001)


def test_rates_are_dense() -> None:
    # The sheets print 1,979 TFLOP/s for H100 and 733 for L40S "with sparsity".
    assert load_device("h100-sxm").matrix_flops_per_s["bf16"] == pytest.approx(989.4e12)
    assert load_device("l40s").matrix_flops_per_s["bf16"] == pytest.approx(362.05e12)


def test_the_export_variants_differ_from_their_originals_in_the_links_alone() -> None:
    for variant, original in [("a800-80gb", "a100-80gb"), ("h800-sxm", "h100-sxm")]:
        exported, full = load_device(variant), load_device(original)
        assert exported.nvlink_bytes_per_s_per_direction == 200e9
        assert replace(
            exported,
            name=full.name,
            nvlink_bytes_per_s_per_direction=full.nvlink_bytes_per_s_per_direction,
            sources=full.sources,
        ) == full  # fmt: skip


def test_a_device_is_found_whatever_the_case() -> None:
    assert load_device("H100-SXM").name == "h100-sxm"


def test_an_unknown_device_gets_the_nearest_name() -> None:
    with pytest.raises(ProfileError, match=r"^h100-sxn: no such device.*did you mean 'h100-sxm'"):
        load_device("h100-sxn")


def test_a_file_of_ones_own_is_loaded_by_path(tmp_path: Path) -> None:
    figure = {"value": 7, "source": "my own measurement"}
    path = write_device(tmp_path / "mine.yaml", name="mine", num_sms=figure)
    device = load_device(path)
    assert (device.name, device.num_sms) == ("mine", 7)
    assert device.sources["num_sms"] == "my own measurement"


def test_an_estimate_needs_no_source_but_anything_else_does(tmp_path: Path) -> None:
    estimate = write_device(tmp_path / "a.yaml", launch_s={"value": 2e-6, "estimated": True})
    assert "launch_s" in load_device(estimate).estimated
    unsourced = write_device(tmp_path / "b.yaml", launch_s={"value": 2e-6})
    with pytest.raises(ProfileError, match=r"b.yaml: launch_s: .*needs a source"):
        load_device(unsourced)


def test_all_wrong_fields_are_reported_at_once(tmp_path: Path) -> None:
    bad = {"value": -1, "source": "nowhere"}
    path = write_device(tmp_path / "bad.yaml", kind="guess", num_sms=bad, tensor_cores=bad)
    with pytest.raises(ProfileError) as caught:
        load_device(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in (str(path), "kind: ", "num_sms.value: ", "tensor_cores: "))


def test_broken_yaml_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("kind: [datasheet")
    with pytest.raises(ProfileError, match=r"broken.yaml: not valid YAML: .*line 1") as caught:
        load_device(path)
    assert "\n" not in str(caught.value)
