"""torch's layers over our kernels: results and shapes are torch's, eager and under `torch.compile`."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

from torch import nn
from torch.nn import functional

from simllm.kernels import layers

from .tolerance import assert_close

# torch's compiler itself uses what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:TensorFloat32:UserWarning")

PAIRS = [(layers.Linear, nn.Linear), (layers.Conv2d, nn.Conv2d), (layers.RMSNorm, nn.RMSNorm)]


class Block(nn.Module):
    """Norm, projection, attention, projection: a small transformer block without its residuals."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu") -> None:
        super().__init__()
        place = {"dtype": dtype, "device": device}
        self.norm = layers.RMSNorm(64, eps=1e-6, **place)
        self.qkv = layers.Linear(64, 3 * 64, bias=False, **place)
        self.attention = layers.Attention()
        self.out = layers.Linear(64, 64, **place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 32)).permute(2, 0, 3, 1, 4)
        attended = self.attention(heads[0], heads[1], heads[2], is_causal=True)
        return self.out(attended.transpose(1, 2).flatten(2))


def block_oracle(block: Block, x: torch.Tensor) -> torch.Tensor:
    """The block in float64 by torch's own layers."""
    normed = functional.rms_norm(x.double(), (64,), block.norm.weight.double(), 1e-6)
    heads = (normed @ block.qkv.weight.double().T).unflatten(-1, (3, 2, 32)).permute(2, 0, 3, 1, 4)
    attended = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
    return functional.linear(
        attended.transpose(1, 2).flatten(2), block.out.weight.double(), block.out.bias.double()
    )


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield
    torch.compiler.reset()


@pytest.mark.parametrize(("ours", "torchs"), PAIRS)
def test_a_layer_takes_the_arguments_of_torchs_in_their_order(ours: type, torchs: type) -> None:
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(torchs).parameters)


def test_attention_takes_the_arguments_of_torchs_function() -> None:
    names = list(inspect.signature(layers.Attention().forward).parameters)
    assert names == ["query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"]


def test_weights_of_torchs_layers_load_into_ours() -> None:
    for ours, torchs in ((layers.Linear(16, 24), nn.Linear(16, 24)), (layers.RMSNorm(16), nn.RMSNorm(16))):
        ours.load_state_dict(torchs.state_dict())
        x = torch.randn(2, 3, 16)
        assert_close(ours(x), torchs(x))


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_agrees_with_torchs_in_either_memory_format(bias: bool) -> None:
    theirs = nn.Conv2d(8, 24, 3, stride=2, padding=1, bias=bias)
    ours = layers.Conv2d(8, 24, 3, stride=2, padding=1, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 13, 14)
    for image in (x, x.to(memory_format=torch.channels_last)):
        assert_close(ours(image), theirs(image))


def test_a_convolution_of_few_channels_is_padded_beforehand() -> None:
    theirs, ours = (module(3, 16, 5, stride=2, padding=2) for module in (nn.Conv2d, layers.Conv2d))
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 17, 12)
    assert_close(ours(image), theirs(image))


def test_heads_inside_a_joint_projection_are_read_where_they_lie() -> None:
    # (batch, tokens, 3 * heads * head_dim) as one projection gives it: no part is contiguous.
    parts = torch.randn(2, 9, 3 * 64).split(64, dim=-1)
    query, key, value = (part.unflatten(-1, (4, 16)).transpose(1, 2) for part in parts)
    out = layers.Attention()(query, key, value, is_causal=True)
    assert_close(out, functional.scaled_dot_product_attention(query, key, value, is_causal=True))


@pytest.mark.parametrize(
    ("num_queries", "num_keys", "is_causal"), [(13, 13, True), (7, 21, False), (1, 48, False)]
)
def test_attention_agrees_with_torchs_over_grouped_heads(
    num_queries: int, num_keys: int, is_causal: bool
) -> None:
    query = torch.randn(2, 4, num_queries, 16)
    key, value = (torch.randn(2, 2, num_keys, 16) for _ in range(2))
    options = {"is_causal": is_causal, "scale": 0.3, "enable_gqa": True}
    out = layers.Attention()(query, key, value, **options)
    assert_close(out, functional.scaled_dot_product_attention(query, key, value, **options))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_whole_block_compiles_into_one_graph(backend: str) -> None:
    block, x = Block(torch.float16), torch.randn(2, 10, 64, dtype=torch.float16)
    compiled = torch.compile(block, backend=backend, fullgraph=True)
    assert_close(compiled(x), block_oracle(block, x), 3e-3)


def operator_arguments() -> list[tuple[Callable[..., torch.Tensor], tuple[object, ...]]]:
    x, image = torch.randn(2, 5, 16), torch.randn(2, 16, 6, 7)
    heads, keys = torch.randn(2, 4, 6, 16), torch.randn(2, 2, 6, 16)
    return [
        (layers.linear_op, (x, torch.randn(24, 16), torch.randn(24))),
        (layers.linear_op, (x.transpose(0, 1), torch.randn(24, 16), None)),
        (layers.conv2d_op, (image, torch.randn(8, 16, 3, 3), None, 1, 1)),
        (layers.rms_norm_op, (x, torch.randn(16), 1e-6)),
        (layers.silu_mul_op, (x,)),
        (layers.attention_op, (heads, keys, keys, True, None)),
    ]


@pytest.mark.parametrize("case", range(6))
def test_an_operator_keeps_its_schema_and_promises_the_right_shape_and_strides(case: int) -> None:
    operator, arguments = operator_arguments()[case]
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: layers.Conv2d(8, 8, 3, groups=2), "groups"),
        (lambda: layers.Conv2d(8, 8, 3, padding="same"), "padding"),
        (lambda: layers.RMSNorm((4, 4)), r"\(4, 4\)"),
    ],
)
def test_options_that_no_kernel_has_are_refused_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dropout_p": 0.1}, "dropout_p"),
        ({}, "enable_gqa"),
        ({"enable_gqa": True, "is_causal": True}, "9 and 5"),
    ],
)
def test_attention_refuses_what_would_differ_from_torchs(options: dict[str, object], said: str) -> None:
    query, key = torch.randn(1, 4, 5, 16), torch.randn(1, 2, 9, 16)
    with pytest.raises(ValueError, match=said):
        layers.Attention()(query, key, key, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_block_compiled_by_inductor_agrees_with_float64(gpu: str, dtype: torch.dtype) -> None:
    block, x = Block(dtype, gpu), torch.randn(3, 200, 64, dtype=dtype, device=gpu)
    block.norm.weight.copy_(torch.rand(64) + 0.5)
    compiled = torch.compile(block, fullgraph=True)
    # Four roundings to the dtype in a row, where `tolerance` allows for one.
    limit = 3e-3 if dtype == torch.float16 else 2.4e-2
    assert_close(compiled(x), block_oracle(block, x), limit)
    assert_close(block(x), block_oracle(block, x), limit)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_single_layers_on_the_gpu_agree_with_torchs(gpu: str, dtype: torch.dtype) -> None:
    x = torch.randn(3, 70, 1024, dtype=dtype, device=gpu)
    linear = layers.Linear(1024, 1536, dtype=dtype, device=gpu)
    assert_close(linear(x), functional.linear(x.double(), linear.weight.double(), linear.bias.double()))
    image = torch.randn(4, 64, 30, 31, dtype=dtype, device=gpu)
    conv = layers.Conv2d(64, 128, 3, padding=1, dtype=dtype, device=gpu)
    assert_close(
        conv(image), functional.conv2d(image.double(), conv.weight.double(), conv.bias.double(), padding=1)
    )
    query, key = (torch.randn(4, heads, 512, 128, dtype=dtype, device=gpu) for heads in (8, 2))
    for queries in (query, query[:, :, :1]):
        out = layers.Attention()(queries, key, key, enable_gqa=True)
        oracle = functional.scaled_dot_product_attention(
            *(t.double() for t in (queries, key, key)), enable_gqa=True
        )
        assert_close(out, oracle)
    gate_up = torch.randn(33, 2 * 1000, dtype=dtype, device=gpu)
    gate, up = gate_up.double().chunk(2, -1)
    assert_close(layers.silu_mul_op(gate_up), functional.silu(gate) * up)
