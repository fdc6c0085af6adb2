"""On a GPU, a point is timed within the limits of physics, and our kernels say how they were compiled."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch

from simllm.calibrate.compiled import NOT_COMPILED
from simllm.calibrate.gpu import GpuMeasurer
from simllm.hwmodels.op_point import OpPoint, work

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture(scope="module")
def measurer() -> GpuMeasurer:
    return GpuMeasurer()


def test_a_row_kernel_takes_microseconds_and_names_its_registers(measurer: GpuMeasurer) -> None:
    timing = measurer(OpPoint("rms_norm", "triton", "bf16", m=64, n=4096))
    assert 1e-7 < timing.time_s < 1e-4
    assert timing.compiled.kernel == "_norm_kernel"
    assert 0 < timing.compiled.registers <= 255
    assert timing.clock_before_mhz > 0


def test_a_large_product_is_no_faster_than_any_gpu_can_be(measurer: GpuMeasurer) -> None:
    point = OpPoint("gemm", "cublas", "bf16", m=4096, n=4096, k=4096)
    timing = measurer(point)
    assert 1e13 < work(point).flops / timing.time_s < 5e15
    assert timing.compiled == NOT_COMPILED


def test_a_launch_from_python_costs_more_than_one_in_a_graph(measurer: GpuMeasurer) -> None:
    eager = measurer(OpPoint("probe_eager_launch", "triton", "fp32"))
    graph = measurer(OpPoint("probe_graph_gap", "triton", "fp32"))
    assert graph.time_s < eager.time_s
