"""The choice between whole tiles and split k: by measured times where there are any, else by rows."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import gemm, linear
from simllm.kernels.tuning import Config, Winner

from .tolerance import assert_close

Times = dict[str, tuple[tuple[int, ...], float]]


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    """Shape and time [us] of the nearest winner of each kernel; none before a test enters them."""
    known: Times = {}

    def winner(kernel: str, variant: str, shape: object, device: object) -> Winner | None:
        return Winner(kernel, variant, known[kernel][0], Config({}), known[kernel][1]) if known else None

    monkeypatch.setattr(linear, "tuned_winner", winner)
    return known


@pytest.mark.parametrize(("m", "is_split"), [(1, True), (256, True), (257, False)])
def test_an_untuned_gpu_splits_k_for_few_rows(times: Times, m: int, is_split: bool) -> None:
    assert linear.is_split(torch.zeros(m, 64), torch.zeros(32, 64)) == is_split


@pytest.mark.parametrize(("split_us", "is_split"), [(9.0, True), (11.0, False)])
def test_a_tuned_gpu_takes_the_faster_kernel_of_the_nearest_shape(
    times: Times, split_us: float, is_split: bool
) -> None:
    times["gemm"], times["gemm_split_k"] = ((96, 32, 64), 10.0), ((96, 32, 64), split_us)
    assert linear.is_split(torch.zeros(100, 64), torch.zeros(32, 64)) == is_split


def test_times_of_different_shapes_are_not_compared(times: Times) -> None:
    times["gemm"], times["gemm_split_k"] = ((512, 32, 64), 10.0), ((64, 32, 64), 1.0)
    assert not linear.is_split(torch.zeros(400, 64), torch.zeros(32, 64))


@pytest.mark.parametrize("n", [64, 37])
def test_rows_that_the_copy_engine_cannot_address_are_multiplied_too(n: int) -> None:
    x, weight, bias = torch.randn(300, 45), torch.randn(n, 45), torch.randn(n)
    assert linear.is_split(x, weight)
    assert_close(linear.linear(x, weight, bias), gemm.matmul_oracle(x, weight, bias))
