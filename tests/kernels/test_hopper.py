"""The kernels written for Hopper: what their tiles need fits the chip, and on it they match float64."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from simllm.kernels import (
    attention_mla_decode,
    attention_mla_hopper,
    conv2d,
    conv2d_hopper,
    gemm_block_scaled,
    gemm_block_scaled_hopper,
    gemm_hopper,
    gemm_quantized,
    moe,
    moe_hopper,
)
from simllm.kernels.hopper import CAPABILITY, CONSUMER_REGISTERS, PRODUCER_REGISTERS, SHARED_BYTES
from simllm.kernels.tuning import Config

from .tolerance import FP8_RELATIVE_ERROR, assert_close


@pytest.fixture
def hopper(gpu: str) -> str:
    """The device of the tests that need a Hopper GPU."""
    if torch.cuda.get_device_capability() != CAPABILITY:
        pytest.skip("needs a Hopper GPU")
    return gpu


@pytest.mark.parametrize("config", conv2d_hopper.candidates(), ids=str)
def test_every_tile_of_a_convolution_leaves_room_for_at_least_two_stages(config: Config) -> None:
    consumers, rows, block_n, stages = (
        config.meta[name] for name in ("CONSUMERS", "ROWS", "BLOCK_N", "STAGES")
    )
    # Two bytes an element: 64 channels of every pixel and filter in each stage, and the results once.
    used = stages * (consumers * rows + block_n) * 64 * 2 + consumers * rows * block_n * 2
    assert stages >= 2
    assert used <= SHARED_BYTES


@pytest.mark.parametrize("consumers", [2, 3])
def test_registers_of_all_warpgroups_fit_the_register_file(consumers: int) -> None:
    # 64 K registers in 4 partitions of 32 lanes: 512 a lane. The one that starts copies keeps the least.
    assert consumers * CONSUMER_REGISTERS[consumers] + PRODUCER_REGISTERS <= 512


@pytest.mark.gpu
@pytest.mark.parametrize("config", conv2d_hopper.candidates(), ids=str)
@pytest.mark.parametrize(
    ("batch", "height", "width", "in_channels", "out_channels", "kernel", "padding"),
    [(5, 23, 18, 72, 200, 3, 1), (2, 56, 56, 128, 128, 3, 1), (3, 9, 9, 64, 64, 5, 2), (1, 8, 8, 8, 8, 3, 0)],
)
def test_convolutions_match_float64_with_every_tile(
    hopper: str, config: Config, batch: int, height: int, width: int, in_channels: int, out_channels: int,
    kernel: int, padding: int,
) -> None:  # fmt: skip
    x = torch.randn(batch, height, width, in_channels, dtype=torch.bfloat16, device=hopper)
    weight = torch.randn(out_channels, kernel, kernel, in_channels, dtype=torch.bfloat16, device=hopper)
    bias = torch.randn(out_channels, dtype=torch.bfloat16, device=hopper)
    out = conv2d.conv2d(x, weight, bias=bias, padding=padding, config=config)
    assert_close(out, conv2d.conv2d_oracle(x, weight, bias, padding=padding))


@pytest.mark.gpu
@pytest.mark.parametrize("config", conv2d_hopper.candidates(), ids=str)
@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding"),
    [
        (24, 18, 3, 2, 1),
        (56, 56, 3, 2, 1),
        (9, 12, 3, 3, 0),
        (8, 8, 1, 2, 0),
        (20, 20, 5, 4, 2),
        (6, 6, 2, 2, 3),
    ],
)
def test_strided_convolutions_match_float64_with_every_tile(
    hopper: str, config: Config, height: int, width: int, kernel: int, stride: int, padding: int
) -> None:
    x = torch.randn(5, height, width, 128, dtype=torch.bfloat16, device=hopper)
    weight = torch.randn(200, kernel, kernel, 128, dtype=torch.bfloat16, device=hopper)
    assert conv2d_hopper.is_supported(x, stride)
    out = conv2d.conv2d(x, weight, stride=stride, padding=padding, config=config)
    assert_close(out, conv2d.conv2d_oracle(x, weight, stride=stride, padding=padding))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("config", gemm_hopper.candidates(), ids=str)
@pytest.mark.parametrize(("m", "n", "k"), [(1000, 1544, 2064), (4096, 4096, 4096), (3, 8, 16)])
def test_8_bit_products_match_float64(
    hopper: str, m: int, n: int, k: int, config: Config, dtype: torch.dtype
) -> None:
    a, b = ((torch.randn(rows, k, device=hopper) * 20).to(dtype) for rows in (m, n))
    a_scale, b_scale = (torch.rand(rows, device=hopper) + 0.5 for rows in (m, n))
    bias = torch.randn(n, dtype=torch.bfloat16, device=hopper)
    out = gemm_quantized.scaled_matmul(a, b, a_scale, b_scale, bias=bias, config=config)
    oracle = gemm_quantized.scaled_matmul_oracle(a, b, a_scale, b_scale, bias)
    assert_close(out, oracle, FP8_RELATIVE_ERROR)


@pytest.mark.gpu
@pytest.mark.parametrize("config", gemm_block_scaled_hopper.candidates(), ids=str)
@pytest.mark.parametrize(("m", "n", "k"), [(1000, 1544, 2048), (4096, 4096, 4096), (3, 8, 128)])
def test_block_scaled_products_match_float64(hopper: str, m: int, n: int, k: int, config: Config) -> None:
    a, b = (torch.randn(rows, k, device=hopper).to(torch.float8_e4m3fn) for rows in (m, n))
    a_scale = torch.rand(k // 128, m, device=hopper).T + 0.5
    b_scale = torch.rand(-(-n // 128), k // 128, device=hopper) + 0.5
    out = gemm_block_scaled.block_scaled_matmul(a, b, a_scale, b_scale, config=config)
    oracle = gemm_block_scaled.block_scaled_matmul_oracle(a, b, a_scale, b_scale)
    assert_close(out, oracle, FP8_RELATIVE_ERROR)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_size", [64, 128])
@pytest.mark.parametrize("num_requests", [1, 5, 140])
def test_latent_decode_matches_float64_at_ragged_contexts(
    hopper: str, num_requests: int, block_size: int, dtype: torch.dtype
) -> None:
    max_blocks = 2048 // block_size
    q = torch.randn(num_requests, 128, 576, dtype=dtype, device=hopper)
    num_blocks = num_requests * max_blocks
    cache = torch.randn(num_blocks, block_size, 576, dtype=dtype, device=hopper)
    table = torch.randperm(num_blocks, device=hopper).int().view(num_requests, -1)
    lens = torch.randint(1, 2049, (num_requests,), dtype=torch.int32, device=hopper)
    sizes = {"latent_dim": 512, "scale": 192**-0.5}
    out = attention_mla_decode.mla_decode_attention(q, cache, table, lens, max_context_len=2048, **sizes)
    assert_close(out, attention_mla_decode.mla_decode_oracle(q, cache, table, lens, **sizes))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_expanded", [False, True])
@pytest.mark.parametrize(("num_tokens", "n", "k"), [(1000, 264, 520), (3, 1536, 2048), (517, 1000, 64)])
def test_grouped_products_match_float64(
    hopper: str, num_tokens: int, n: int, k: int, is_expanded: bool, dtype: torch.dtype
) -> None:
    rows = num_tokens * 4 if is_expanded else num_tokens
    x, w = (torch.randn(*shape, k, dtype=dtype, device=hopper) for shape in ((rows,), (16, n)))
    _, experts = moe.route(torch.randn(num_tokens, 16, device=hopper), 4)
    plan = moe.plan_tiles(experts, 16, moe_hopper.BLOCK_M)
    config = Config({"IS_HOPPER": True, "STAGES": 4, "GROUP_M": 4})
    y = moe.grouped_matmul(x, w, plan, is_expanded=is_expanded, config=config)
    choices = experts.view(-1, 1) if is_expanded else experts
    assert_close(y, moe.grouped_oracle(x, w, choices))


def test_splits_of_latent_decoding_fill_whole_waves() -> None:
    # 128 requests of 128 heads are 256 programs of 64 rows, two waves of 132 as they are; 16 requests are 32
    # programs, and 4 parts of each fill one wave with 128, where 5 would need a second.
    splits = attention_mla_hopper.choose_splits
    assert (splits(256, 64, 132), splits(32, 64, 132)) == (1, 4)
    assert splits(2, 1, 132) == 1


@pytest.mark.gpu
def test_portable_convolutions_match_float64_here_too(gpu: str) -> None:
    x = torch.randn(5, 28, 21, 64, dtype=torch.bfloat16, device=gpu)
    weight = torch.randn(200, 3, 3, 64, dtype=torch.bfloat16, device=gpu)
    out = conv2d.conv2d(x, weight, padding=1, config=conv2d.DEFAULT)
    assert_close(out, conv2d.conv2d_oracle(x, weight, padding=1))


@pytest.mark.gpu
def test_portable_grouped_products_match_float64_here_too(gpu: str) -> None:
    x, w = (torch.randn(*rows, 512, dtype=torch.bfloat16, device=gpu) for rows in ((300,), (16, 264)))
    _, experts = moe.route(torch.randn(300, 16, device=gpu), 4)
    y = moe.grouped_matmul(x, w, moe.plan_tiles(experts, 16, 128), config=moe.default_config())
    assert_close(y, moe.grouped_oracle(x, w, experts))


@pytest.mark.gpu
def test_portable_block_scaled_products_match_float64_here_too(gpu: str) -> None:
    a, b = (torch.randn(rows, 1024, device=gpu).to(torch.float8_e4m3fn) for rows in (1000, 1544))
    scales = torch.rand(8, 1000, device=gpu).T + 0.5, torch.rand(13, 8, device=gpu) + 0.5
    config = gemm_block_scaled.default_config(1000)
    out = gemm_block_scaled.block_scaled_matmul(a, b, *scales, config=config)
    oracle = gemm_block_scaled.block_scaled_matmul_oracle(a, b, *scales)
    assert_close(out, oracle, FP8_RELATIVE_ERROR)


@pytest.mark.gpu
def test_portable_latent_decode_matches_float64_here_too(gpu: str) -> None:
    q, cache = (torch.randn(*rows, 576, dtype=torch.bfloat16, device=gpu) for rows in ((3, 128), (48, 64)))
    table = torch.randperm(48, device=gpu).int().view(3, 16)
    lens = torch.tensor([1024, 77, 1], dtype=torch.int32, device=gpu)
    config, sizes = attention_mla_decode.default_config(128, 64), {"latent_dim": 512, "scale": 0.07}
    out = attention_mla_decode.mla_decode_attention(
        q, cache, table, lens, max_context_len=1024, config=config, **sizes
    )
    assert_close(out, attention_mla_decode.mla_decode_oracle(q, cache, table, lens, **sizes))
