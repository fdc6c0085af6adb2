"""The tuning tables: what is written is what is read, and a launch finds the nearest measured shape."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import tuning
from simllm.kernels.tuning import Config, TuningTable, Winner
from simllm.kernels.tuning_cases import cases


def winner(shape: tuple[int, ...], stages: int) -> Winner:
    return Winner("gemm", "bf16", shape, Config({"BLOCK_M": 64, "SPLIT_STORE": True}, 8, stages, 2), 12.5)


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table = TuningTable("some-gpu", "2.11.0", "3.6.0", (winner((16, 16, 16), 3), winner((64, 64, 64), 4)))
    tuning.save_table(table, tmp_path)
    assert tuning.load_table("some-gpu", tmp_path) == table


def test_a_shape_takes_the_winner_of_the_nearest_measured_one() -> None:
    table = TuningTable(
        "some-gpu", "2.11.0", "3.6.0", (winner((16, 16, 16), 3), winner((4096, 4096, 4096), 4))
    )
    nearest = table.nearest("gemm", "bf16", (3000, 5000, 4096))
    assert nearest is not None
    assert nearest.config.num_stages == 4
    assert table.nearest("gemm", "fp8", (16, 16, 16)) is None


def test_a_gpu_without_a_table_runs_on_defaults(tmp_path: Path) -> None:
    assert tuning.load_table("unheard-of", tmp_path) is None
    assert tuning.tuned_config("gemm", "bf16", (16, 16, 16), torch.device("cpu")) is None


def test_the_shipped_table_of_the_h200_has_a_winner_of_every_case() -> None:
    table = tuning.load_table("nvidia-h200")
    assert table is not None
    winners = {(entry.kernel, entry.variant, entry.shape) for entry in table.winners}
    assert {(case.kernel, case.variant, case.shape) for case in cases()} == winners
