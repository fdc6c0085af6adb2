"""Prints our layers beside torch's: `python -m simllm.benchmarks.layers`.

Needs a CUDA GPU. One transformer block with the shapes of Llama-3.1-8B, decoding 32 requests at 4 k of
context and prefilling 2,048 tokens, and a small convolutional network; bf16, random weights. A layer's row is
the median of its launches with a cold L2; the last row is the whole network, its launches in one CUDA graph.
SIMPLIFIED: no rotary positions, of which torch has no layer; effect: one launch of a few microseconds less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial

import torch
import triton
from torch import nn
from torch.nn import functional

from simllm.kernels import layers
from simllm.kernels.timing import flushed_median_s, graph_median_s
from simllm.kernels.tuning_inputs import random

# Source: config.json of meta-llama/Llama-3.1-8B.
HIDDEN, INTERMEDIATE, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, EPSILON = 4096, 14336, 32, 8, 128, 1e-5
KV_SIZE = NUM_KV_HEADS * HEAD_DIM
DECODE_REQUESTS, DECODE_CONTEXT, PREFILL_TOKENS = 32, 4096, 2048
IMAGES, IMAGE_SIZE = 32, 224
# in_channels, out_channels, kernel, stride, padding: the stem and stages of ResNet-18, arXiv 1512.03385.
CONVOLUTIONS = (
    (3, 64, 7, 2, 3), (64, 64, 3, 1, 1), (64, 128, 3, 2, 1), (128, 128, 3, 1, 1), (128, 256, 3, 2, 1),
    (256, 256, 3, 1, 1), (256, 512, 1, 1, 0),
)  # fmt: skip
NUM_CLASSES = 1000

Forward = Callable[..., torch.Tensor]
Call = tuple[str, Forward, tuple[torch.Tensor, ...], dict[str, object]]


class Function(nn.Module):  # type: ignore[misc]
    """A function as a layer, so that its calls are recorded as those of layers are."""

    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: torch.Tensor, **options: object) -> torch.Tensor:
        """Returns what the function does."""
        return self.function(*arguments, **options)


def torch_silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """Returns SiLU(gate) * up as torch users write it."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


@dataclass(frozen=True, slots=True)
class Library:
    """The layers that a network is made of: ours or torch's."""

    linear: type[nn.Linear]
    conv2d: type[nn.Conv2d]
    rms_norm: type[nn.RMSNorm]
    attention: nn.Module
    silu_mul: nn.Module


OURS = Library(layers.Linear, layers.Conv2d, layers.RMSNorm, layers.Attention(), Function(layers.silu_mul_op))
TORCHS = Library(
    nn.Linear, nn.Conv2d, nn.RMSNorm, Function(functional.scaled_dot_product_attention),
    Function(torch_silu_mul),
)  # fmt: skip


class Block(nn.Module):  # type: ignore[misc]
    """A block of Llama-3.1-8B; without a cache of keys and values every token attends to those of `x`."""

    def __init__(self, library: Library) -> None:
        super().__init__()
        place = {"device": "cuda", "dtype": torch.bfloat16}
        self.silu_mul = library.silu_mul
        self.attention_norm = library.rms_norm(HIDDEN, EPSILON, **place)
        self.qkv = library.linear(HIDDEN, HIDDEN + 2 * KV_SIZE, bias=False, **place)
        self.attention = library.attention
        self.out = library.linear(HIDDEN, HIDDEN, bias=False, **place)
        self.mlp_norm = library.rms_norm(HIDDEN, EPSILON, **place)
        self.gate_up = library.linear(HIDDEN, 2 * INTERMEDIATE, bias=False, **place)
        self.down = library.linear(INTERMEDIATE, HIDDEN, bias=False, **place)

    def forward(self, x: torch.Tensor, cache: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
        """Returns (batch, tokens, HIDDEN); a cache is (k, v), (batch, kv_heads, keys, head_dim), with x's."""
        sizes = [HIDDEN, KV_SIZE, KV_SIZE]
        q, k, v = (
            part.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).split(sizes, dim=-1)
        )
        keys, values = (k, v) if cache is None else cache
        attended = self.attention(q, keys, values, is_causal=cache is None, enable_gqa=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(self.silu_mul(self.gate_up(self.mlp_norm(x))))


class SmallCnn(nn.Module):  # type: ignore[misc]
    """Convolutions with ReLU, the mean over the image, and a classifier."""

    def __init__(self, library: Library) -> None:
        super().__init__()
        place = {"device": "cuda", "dtype": torch.bfloat16}
        self.convolutions = nn.ModuleList(
            library.conv2d(cin, cout, kernel, stride, padding, bias=False, **place)
            for cin, cout, kernel, stride, padding in CONVOLUTIONS
        )
        self.classifier = library.linear(CONVOLUTIONS[-1][1], NUM_CLASSES, **place)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns (batch, NUM_CLASSES) for image (batch, 3, height, width)."""
        for convolution in self.convolutions:
            image = functional.relu(convolution(image))
        return self.classifier(image.mean((2, 3)))


def twins(network: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    """Returns the network of our layers and that of torch's, with the same weights."""
    ours, torchs = network(OURS), network(TORCHS)
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def print_network(title: str, pair: tuple[nn.Module, nn.Module], *inputs: object) -> None:
    """Prints one line per layer, over the inputs that it has in our network, and one for the whole."""
    print(f"\n{title}\n{'layer':34} {'ours us':>9} {'torch us':>9} {'ratio':>6}")
    ours, torchs = pair
    check(ours(*inputs), torchs(*inputs))
    beside = dict(torchs.named_modules())
    for name, layer, arguments, options in recorded(ours, *inputs):
        runs = (partial(run, *arguments, **options) for run in (layer, beside[name]))
        print_line(f"{name} {shape_text(arguments[0])}", *(flushed_median_s(run) for run in runs))
    print_line("whole, in a CUDA graph", *(graph_median_s([partial(net, *inputs)]) for net in pair))


def recorded(network: nn.Module, *inputs: object) -> list[Call]:
    """Returns the calls of the network's layers in order: name, layer, arguments, options."""
    calls: list[Call] = []
    names = {module: name for name, module in network.named_modules() if not list(module.children())}

    def note(layer: nn.Module, arguments: tuple[torch.Tensor, ...], options: dict[str, object]) -> None:
        calls.append((names[layer], layer, arguments, options))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in names]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return calls


def check(ours: torch.Tensor, torchs: torch.Tensor) -> None:
    """Raises RuntimeError if two networks of equal weights disagree by more than bf16's roundings."""
    error = float((ours.float() - torchs.float()).norm() / torchs.float().norm())
    if not error < 2e-2:
        raise RuntimeError(f"our layers differ from torch's by {error:.2g}")


def shape_text(tensor: torch.Tensor) -> str:
    """Returns 32x1x4096."""
    return "x".join(map(str, tensor.shape))


def print_line(name: str, ours_s: float, torch_s: float) -> None:
    """Prints one line; `ratio` above 1 means that ours is faster."""
    print(f"{name:34} {ours_s * 1e6:9.1f} {torch_s * 1e6:9.1f} {torch_s / ours_s:6.2f}", flush=True)


def main() -> None:
    """Prints what it measures on, then the networks."""
    if not torch.cuda.is_available():
        raise SystemExit("the layer benchmark needs a CUDA GPU")
    versions = f"torch {torch.__version__}, Triton {triton.__version__}"
    print(f"{torch.cuda.get_device_name()}, {versions}, {date.today()}")
    torch.backends.cudnn.benchmark = True
    with torch.no_grad():
        print_networks()


def print_networks() -> None:
    """Prints the block decoding, the block prefilling, and the convolutional network."""
    block = twins(Block)
    cache = tuple(
        random(DECODE_REQUESTS, DECODE_CONTEXT, NUM_KV_HEADS, HEAD_DIM).transpose(1, 2) for _ in range(2)
    )
    decode_title = f"transformer block, decode {DECODE_REQUESTS} requests at {DECODE_CONTEXT} of context"
    print_network(decode_title, block, random(DECODE_REQUESTS, 1, HIDDEN), cache)
    prefill_title = f"transformer block, prefill {PREFILL_TOKENS} tokens"
    print_network(prefill_title, block, random(1, PREFILL_TOKENS, HIDDEN), None)
    images = random(IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE).to(memory_format=torch.channels_last)
    print_network(f"small CNN, {IMAGES} images of {IMAGE_SIZE}^2", twins(SmallCnn), images)


if __name__ == "__main__":
    main()
