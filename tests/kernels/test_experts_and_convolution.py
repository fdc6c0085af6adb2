"""Mixture of experts and convolution against float64, and the plan that sorts rows by expert."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import conv2d, moe
from simllm.kernels.tuning import Config

from .tolerance import assert_close

TILE = Config({"BLOCK_N": 32, "BLOCK_K": 32, "GROUP_M": 2})
SMALL = Config({"BLOCK_M": 32, "BLOCK_N": 16, "BLOCK_K": 16, "GROUP_M": 2})


@pytest.mark.parametrize("is_renormalized", [True, False])
def test_routing_picks_the_largest_probabilities_in_order(is_renormalized: bool) -> None:
    logits = torch.randn(23, 12)
    weights, experts = moe.route(logits, 3, is_renormalized=is_renormalized)
    expected_weights, expected_experts = moe.route_oracle(logits, 3, is_renormalized=is_renormalized)
    assert torch.equal(experts.long(), expected_experts)
    assert_close(weights, expected_weights)


def test_every_row_stands_once_in_a_tile_of_its_own_expert() -> None:
    experts = torch.tensor([[0, 3], [0, 1], [0, 3], [0, 1], [0, 3]], dtype=torch.int32)
    plan = moe.plan_tiles(experts, 5, block_m=4)
    # Five rows of expert 0 fill two tiles, two of expert 1 and three of expert 3 one each; 2 and 4 have none.
    assert int(plan.num_tiles) == 4
    assert plan.tile_experts[:4].tolist() == [0, 0, 1, 3]
    rows = plan.rows.view(-1, 4)
    assert sorted(row for row in plan.rows.tolist() if row < 10) == list(range(10))
    for tile, expert in zip(rows[:4], plan.tile_experts, strict=False):
        assert all(experts.flatten()[row] == expert for row in tile.tolist() if row < 10)


def test_grouped_product_and_combination_equal_a_loop_over_tokens() -> None:
    x, w = torch.randn(23, 48, dtype=torch.float16), torch.randn(12, 40, 48, dtype=torch.float16)
    weights, experts = moe.route(torch.randn(23, 12), 3)
    y = moe.grouped_matmul(x, w, moe.plan_tiles(experts, 12, 16), config=TILE)
    assert_close(y, moe.grouped_oracle(x, w, experts))
    combined = (y.double().view(23, 3, -1) * weights.double()[..., None]).sum(1)
    assert_close(moe.combine(y, weights), combined)


def test_a_skewed_routing_that_leaves_experts_empty_is_handled() -> None:
    x, w = torch.randn(40, 32, dtype=torch.float16), torch.randn(6, 16, 32, dtype=torch.float16)
    experts = torch.tensor([[5, 0]], dtype=torch.int32).repeat(40, 1)
    y = moe.grouped_matmul(x, w, moe.plan_tiles(experts, 6, 16), config=TILE)
    assert_close(y, moe.grouped_oracle(x, w, experts))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "channels", "config"),
    [
        (3, 1, 1, 24, SMALL),
        (1, 1, 0, 16, SMALL),
        (5, 1, 2, 8, SMALL),
        (3, 2, 1, 16, SMALL),
        (4, 4, 0, 3, SMALL),
        (3, 1, 1, 5, SMALL),
    ],
)
def test_convolution_matches_float64(
    kernel: int, stride: int, padding: int, channels: int, config: Config
) -> None:
    x, weight = (
        torch.randn(*shape, channels, dtype=torch.float16) for shape in ((2, 13, 14), (24, kernel, kernel))
    )
    bias, steps = torch.randn(24, dtype=torch.float16), {"stride": stride, "padding": padding}
    out = conv2d.conv2d(x, weight, bias=bias, config=config, **steps)
    assert_close(out, conv2d.conv2d_oracle(x, weight, bias, **steps))


@pytest.mark.parametrize(("size", "box"), [(14, (32, 2, 2)), (28, (8, 4, 4)), (56, (2, 8, 8))])
def test_boxes_fit_the_feature_maps_of_a_residual_network_exactly(
    size: int, box: tuple[int, int, int]
) -> None:
    assert conv2d.choose_box(32, size, size, 128) == box


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("num_tokens", "block_m"), [(1000, 128), (30, 16)])
def test_experts_on_the_gpu(gpu: str, num_tokens: int, block_m: int, dtype: torch.dtype) -> None:
    x = torch.randn(num_tokens, 512, dtype=dtype, device=gpu)
    w = torch.randn(16, 264, 512, dtype=dtype, device=gpu)
    _, experts = moe.route(torch.randn(num_tokens, 16, device=gpu), 4)
    y = moe.grouped_matmul(x, w, moe.plan_tiles(experts, 16, block_m))
    assert_close(y, moe.grouped_oracle(x, w, experts))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "channels"),
    [(3, 1, 1, 64), (1, 1, 0, 256), (3, 2, 1, 64), (14, 14, 0, 3)],
)
def test_convolution_on_the_gpu(
    gpu: str, kernel: int, stride: int, padding: int, channels: int, dtype: torch.dtype
) -> None:
    shapes = ((5, 56, 42, channels), (200, kernel, kernel, channels))
    x, weight = (torch.randn(*shape, dtype=dtype, device=gpu) for shape in shapes)
    out = conv2d.conv2d(x, weight, stride=stride, padding=padding)
    assert_close(out, conv2d.conv2d_oracle(x, weight, stride=stride, padding=padding))
