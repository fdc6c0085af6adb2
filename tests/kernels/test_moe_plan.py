"""The plan that sorts the rows of a mixture of experts, by hand and as a law."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels.moe_plan import plan_tiles


def test_rows_stand_expert_by_expert_padded_to_whole_tiles() -> None:
    # Rows 1, 2, 4 chose expert 0, row 0 expert 2, rows 3 and 5 expert 1: tiles of two rows, 6 is padding.
    plan = plan_tiles(torch.tensor([[2, 0], [0, 1], [0, 1]], dtype=torch.int32), 4, block_m=2)
    assert int(plan.num_tiles) == 4
    assert plan.rows[:8].tolist() == [1, 2, 4, 6, 3, 5, 0, 6]
    assert plan.tile_experts[:4].tolist() == [0, 0, 1, 2]
    # Four experts may have a rest and six rows fill three tiles: of seven, the last three hold padding alone.
    assert plan.rows[8:].tolist() == [6] * 6


@pytest.mark.parametrize(("num_tokens", "num_experts", "top_k", "block_m"), [(1, 8, 2, 16), (700, 5, 3, 16)])
def test_the_rows_are_those_of_a_stable_sort(
    num_tokens: int, num_experts: int, top_k: int, block_m: int
) -> None:
    experts = torch.randint(0, num_experts, (num_tokens, top_k), dtype=torch.int32)
    plan = plan_tiles(experts, num_experts, block_m)
    rows = plan.rows[plan.rows < experts.numel()]
    assert torch.equal(rows.long(), experts.flatten().argsort(stable=True))


def test_a_plan_of_no_int32_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="int64"):
        plan_tiles(torch.zeros(2, 2, dtype=torch.int64), 4, 16)
    with pytest.raises(ValueError, match="24"):
        plan_tiles(torch.zeros(2, 2, dtype=torch.int32), 4, 24)
