"""Constants of the engine and dtypes of a deployment: what is refused, and what is multiplied in."""

from __future__ import annotations

import pytest

from simllm.errors import ProfileError, SimllmError
from simllm.hwmodels.device import load_device
from simllm.hwmodels.engine_profile import EngineOverhead
from simllm.hwmodels.precision import Precision


@pytest.mark.parametrize("value", [-1e-6, float("inf"), float("nan")])
def test_an_overhead_is_a_finite_time(value):
    with pytest.raises(ProfileError, match="eager_launch_s must be at least 0 s"):
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
