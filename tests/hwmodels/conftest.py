"""Fixtures of the hardware models' tests: a device with round numbers, and shipped models."""

from __future__ import annotations

import pytest

from simllm.hwmodels.device import DeviceSpec, load_device
from simllm.hwmodels.model import ModelSpec
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.roofline import Efficiency


@pytest.fixture
def toy_device() -> DeviceSpec:
    """100 SMs, 1 PFLOP/s of bf16, 100 TFLOP/s of fp32, 1 TB/s of HBM, 10 of L2, 100 of SRAM."""
    return DeviceSpec(
        name="toy",
        matrix_flops_per_s={"bf16": 1e15, "fp8": 2e15},
        vector_flops_per_s=1e14,
        hbm_bytes=80 * 2**30,
        hbm_bytes_per_s=1e12,
        l2_bytes=50 * 2**20,
        l2_bytes_per_s=1e13,
        sram_bytes_per_sm=256 * 2**10,
        sram_bytes_per_s=1e14,
        num_sms=100,
        clock_hz=1e9,
        nvlink_bytes_per_s_per_direction=4e11,
        pcie_bytes_per_s_per_direction=5e10,
        launch_s=1e-6,
        estimated=frozenset(),
        sources={},
    )


@pytest.fixture
def whole_rates() -> Efficiency:
    """Kernels that reach every rate of the datasheet."""
    return Efficiency(
        matrix=1, attention_matrix=1, vector=1, hbm=1, kv_hbm=1, l2=1, sram=1, link=1
    )  # fmt: skip


@pytest.fixture(scope="session")
def h200() -> DeviceSpec:
    return load_device("h200-sxm")


@pytest.fixture(scope="session")
def llama_8b() -> ModelSpec:
    return load_model("llama-3.1-8b")


@pytest.fixture(scope="session")
def qwen_moe() -> ModelSpec:
    return load_model("qwen3-30b-a3b")


@pytest.fixture(scope="session")
def deepseek_v3() -> ModelSpec:
    return load_model("deepseek-v3")
