"""Constants of the engine, their files, and dtypes of a deployment: what is read, and what is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from simllm.errors import ProfileError, SimllmError
from simllm.hwmodels.device import load_device
from simllm.hwmodels.engine_profile import (
    EngineOverhead,
    dump_engine_profile,
    engine_profile_names,
    load_engine_profile,
    shipped_engine_profile,
    shipped_front_end,
)
from simllm.hwmodels.precision import Precision


@pytest.mark.parametrize("value", [-1e-6, float("inf"), float("nan")])
def test_an_overhead_is_a_finite_time(value):
    with pytest.raises(ProfileError, match="eager_launch_s must be at least 0, got"):
        EngineOverhead(eager_launch_s=value)


@pytest.mark.parametrize(
    "device, weight, compute",
    [
        ("h200-sxm", "bf16", "bf16"),
        ("h200-sxm", "fp8", "fp8"),
        ("a100-80gb", "fp8", "bf16"),  # no fp8 units: weights are widened
        ("a100-80gb", "int8", "int8"),
        ("a100-80gb", "int4", "bf16"),  # weight-only
    ],
)
def test_products_are_quantised_where_the_device_has_the_units(device, weight, compute):
    assert Precision.on(load_device(device), weight=weight, activation="bf16", kv="bf16").compute == compute


@pytest.mark.parametrize(
    "dtypes", [{"weight": "bf61", "activation": "bf16"}, {"weight": "bf16", "activation": "bf61"}]
)
def test_an_unknown_dtype_gives_the_nearest_one(h200, dtypes):
    with pytest.raises(SimllmError, match=r"unknown (weight|activation) dtype 'bf61'; did you mean 'bf16'\?"):
        Precision.on(h200, kv="bf16", **dtypes)


CONSTANT = "{value: 2.0e-4, low: 1.0e-4, high: 3.0e-4}"


def engine_file(tmp_path: Path, **changes: str) -> Path:
    """Writes an engine profile with one constant, some of its fields changed."""
    fields = {
        "schema_version": "1",
        "kind": "fitted",
        "name": "mine",
        "engine": "vllm",
        "version": "0.22.1",
        "device": "h200-sxm",
        "profile": "h200-sxm",
        "constants": f"{{step_s: {CONSTANT}}}",
    } | changes
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()), encoding="utf-8")
    return path


def test_constants_that_were_not_fitted_keep_their_estimates(tmp_path):
    overhead = load_engine_profile(engine_file(tmp_path)).overhead()
    assert overhead == EngineOverhead(step_s=2.0e-4)


def test_a_profile_is_found_by_its_name_whatever_its_case():
    assert load_engine_profile("VLLM-0.22-H200-SXM") == load_engine_profile("vllm-0.22-h200-sxm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"constants": f"{{steps_s: {CONSTANT}}}"},
            r"mine.yaml: constants.steps_s: no such constant; did you mean 'step_s'\?$",
        ),
        ({"constants": f"{{zzz: {CONSTANT}}}"}, "mine.yaml: constants.zzz: no such constant$"),
        ({"constants": "{step_s: {value: 1.0, low: 0.5}}"}, r"constants.step_s.high: Field required$"),
        (
            {"constants": "{step_s: {value: -1.0, low: 0, high: 0}}"},
            r"constants.step_s.value: .* greater than or equal to 0$",
        ),
        ({"constants": "{step_s: {value: .inf, low: 0, high: 0}}"}, "constants.step_s.value: .*finite"),
        ({"kind": "guessed"}, "mine.yaml: kind: Input should be 'fitted'$"),
        ({"colour": "blue"}, "mine.yaml: colour: Extra inputs are not permitted$"),
        ({"name": "["}, "mine.yaml: not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_line_with_the_field(tmp_path, changes, message):
    with pytest.raises(ProfileError, match=message) as caught:
        load_engine_profile(engine_file(tmp_path, **changes))
    assert "\n" not in str(caught.value)


TIME = "{value: 2.0e-4, low: 1.0e-4, high: 3.0e-4, num_observations: 7}"
TIMES = ", ".join(
    f"{name}: {TIME}"
    for name in ("request_s", "prompt_token_s", "in_s", "out_s", "token_s", "first_token_s", "last_token_s")
)


def test_a_front_end_has_the_times_that_were_fitted(tmp_path):
    profile = load_engine_profile(engine_file(tmp_path, front_end=f"{{constants: {{{TIMES}}}}}"))
    times = profile.front_end.times()
    assert len(times) == 7
    assert set(times.values()) == {2.0e-4}
    assert not {"hold_s", "turnaround_s"} & set(times)


def test_a_profile_need_not_have_a_front_end(tmp_path):
    assert load_engine_profile(engine_file(tmp_path)).front_end is None


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        (f"{TIMES}, held_s: {TIME}", "front_end.constants.held_s: Extra inputs are not permitted$"),
        (TIMES.replace("in_s", "hold_s"), "front_end.constants.in_s: Field required$"),
        (
            TIMES.replace("num_observations: 7", "num_observations: 0"),
            "front_end.constants.request_s.num_observations: .* greater than or equal to 1",
        ),
    ],
)
def test_a_wrong_front_end_is_one_line_with_the_field(tmp_path, constants, message):
    with pytest.raises(ProfileError, match=message):
        load_engine_profile(engine_file(tmp_path, front_end=f"{{constants: {{{constants}}}}}"))


def test_what_is_written_is_read_again(tmp_path):
    profile = load_engine_profile("vllm-0.22-h200-sxm")
    path = tmp_path / "copy.yaml"
    path.write_text(dump_engine_profile(profile), encoding="utf-8")
    assert load_engine_profile(path) == profile


def test_a_front_end_serves_on_other_devices_but_not_other_engines():
    own = shipped_front_end("vllm", "h200-sxm")
    assert own is not None
    assert shipped_front_end("vllm", "l40s") == own
    assert shipped_front_end("tgi", "h200-sxm") is None


def test_an_unknown_name_gives_the_nearest_one():
    with pytest.raises(ProfileError, match=r"did you mean 'vllm-0.22-h200-sxm'\?"):
        load_engine_profile("vllm-0.22-h200")


def test_an_engine_has_a_shipped_profile_on_the_devices_where_it_was_fitted():
    profile = shipped_engine_profile("vllm", "h200-sxm")
    assert profile is not None
    assert (profile.engine, profile.device) == ("vllm", "h200-sxm")
    assert shipped_engine_profile("vllm", "l40s") is None
    assert shipped_engine_profile("tgi", "h200-sxm") is None


@pytest.mark.parametrize("name", engine_profile_names())
def test_a_shipped_profile_has_every_constant_within_its_interval(name):
    profile = load_engine_profile(name)
    assert profile.name == name
    assert set(profile.constants) == {field.name for field in fields(EngineOverhead)}
    assert profile.front_end is not None
    for constant in (*profile.constants.values(), *profile.front_end.constants.items().values()):
        assert constant.low <= constant.value <= constant.high
    assert profile.runs and profile.front_end.runs


def test_ratios_belong_to_the_kernels_that_stand_in_for_the_engine_s():
    ratios = EngineOverhead(decode_ratio=1.1, prefill_ratio=0.9, moe_ratio=1.2).kernel_ratios
    assert ratios == {
        "attention_decode": 1.1, "mla_decode": 1.1, "attention_prefill": 0.9, "grouped_gemm": 1.2,
    }  # fmt: skip
