"""Sampling of the next token: temperature, top-k, top-p, and a draw, without sorting the vocabulary.

Shapes: logits (num_rows, vocab_size) of any float type; temperatures, top_ps fp32 and top_ks int32
(num_rows,); tokens int32 (num_rows,). Temperature 0 takes the largest logit; top_k 0 and top_p 1 keep every
token.
Papers: nucleus sampling, arXiv 1904.09751; the Gumbel-max trick (Gumbel, 1954): argmax of logit + noise is a
draw from the softmax. The thresholds are found by bisecting the 32 bits of a float's order, exact to the last
bit: tokens whose logit ties with the threshold are all kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES

BLOCK = 8192
NO_THRESHOLD = -3.0e38


@triton.jit
def _ordered(value):
    """Maps fp32 to int32 so that integers compare as the floats do; its own inverse."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _tail(row_ptr, vocab_size, threshold, row_max, scale, COUNTS: tl.constexpr, BLOCK: tl.constexpr):
    """Number (COUNTS) or weight of the tokens whose scaled logit reaches `threshold`."""
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in tl.range(0, vocab_size, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        logits = (
            tl.load(row_ptr + columns, mask=columns < vocab_size, other=float("-inf")).to(tl.float32) * scale
        )
        kept = logits >= threshold
        if COUNTS:
            total += tl.where(kept, 1.0, 0.0)
        else:
            total += tl.where(kept, tl.exp(logits - row_max), 0.0)
    return tl.sum(total, 0)


@triton.jit
def _largest_threshold(
    row_ptr, vocab_size, low, high, wanted, row_max, scale, COUNTS: tl.constexpr, BLOCK: tl.constexpr
):
    """Largest t in [low, high] whose tail is at least `wanted`, given that low's is."""
    low_bits = _ordered(low).to(tl.int64)
    high_bits = _ordered(high).to(tl.int64)
    while low_bits < high_bits:
        middle = (low_bits + high_bits + 1) >> 1
        threshold = _ordered(middle.to(tl.int32).to(tl.float32, bitcast=True)).to(tl.float32, bitcast=True)
        if _tail(row_ptr, vocab_size, threshold, row_max, scale, COUNTS, BLOCK) >= wanted:
            low_bits = middle
        else:
            high_bits = middle - 1
    return _ordered(low_bits.to(tl.int32).to(tl.float32, bitcast=True)).to(tl.float32, bitcast=True)


@triton.jit
def _sample_kernel(
    logits_ptr, tokens_ptr, temperatures_ptr, top_ks_ptr, top_ps_ptr, vocab_size, seed,
    LOWEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (num_rows,): maximum, the two thresholds, then the argmax of logit + Gumbel noise above them."""
    row = tl.program_id(0)
    row_ptr = logits_ptr + row.to(tl.int64) * vocab_size
    temperature = tl.load(temperatures_ptr + row)
    is_greedy = temperature == 0.0
    scale = tl.where(is_greedy, 1.0, 1.0 / tl.where(is_greedy, 1.0, temperature))
    largest = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    for start in tl.range(0, vocab_size, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        logits = tl.load(row_ptr + columns, mask=columns < vocab_size, other=float("-inf")).to(tl.float32)
        largest = tl.maximum(largest, logits * scale)
    row_max = tl.max(largest, 0)
    threshold = LOWEST
    top_k = tl.load(top_ks_ptr + row)
    top_p = tl.load(top_ps_ptr + row)
    if not is_greedy:
        if (top_k > 0) & (top_k < vocab_size):
            wanted = top_k.to(tl.float32)
            threshold = _largest_threshold(
                row_ptr, vocab_size, threshold, row_max, wanted, row_max, scale, True, BLOCK
            )
        if top_p < 1.0:
            wanted = top_p * _tail(row_ptr, vocab_size, threshold, row_max, scale, False, BLOCK)
            threshold = _largest_threshold(
                row_ptr, vocab_size, threshold, row_max, wanted, row_max, scale, False, BLOCK
            )
    best = float("-inf")
    token = 0
    for start in tl.range(0, vocab_size, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        logits = (
            tl.load(row_ptr + columns, mask=columns < vocab_size, other=float("-inf")).to(tl.float32) * scale
        )
        uniform = tl.rand(seed, row * vocab_size + columns)
        noise = -tl.log(-tl.log(tl.maximum(uniform, 1.0e-10)))
        noisy = tl.where(logits >= threshold, logits + tl.where(is_greedy, 0.0, noise), float("-inf"))
        block_best = tl.max(noisy, 0)
        if block_best > best:
            best = block_best
            token = start + tl.argmax(noisy, 0)
    tl.store(tokens_ptr + row, token)


def sample(
    logits: torch.Tensor, temperatures: torch.Tensor, top_ks: torch.Tensor, top_ps: torch.Tensor, *, seed: int
) -> torch.Tensor:
    """Returns one drawn token per row, int32 (num_rows,); the same seed draws the same tokens.

    Raises: ValueError if logits is no contiguous matrix or a parameter is not (num_rows,).
    """
    if logits.ndim != 2 or not logits.is_contiguous():
        raise ValueError(f"expected contiguous logits (num_rows, vocab_size), got {tuple(logits.shape)}")
    num_rows, vocab_size = logits.shape
    for name, values in (("temperatures", temperatures), ("top_ks", top_ks), ("top_ps", top_ps)):
        if values.shape != (num_rows,):
            raise ValueError(f"expected {name} ({num_rows},), got {tuple(values.shape)}")
    tokens = torch.empty(num_rows, dtype=torch.int32, device=logits.device)
    block = min(BLOCK, triton.next_power_of_2(vocab_size))
    _sample_kernel[(num_rows,)](
        logits,
        tokens,
        temperatures,
        top_ks,
        top_ps,
        vocab_size,
        seed,
        LOWEST=NO_THRESHOLD,
        BLOCK=block,
        num_warps=16,
    )
    return tokens


def kept_tokens_oracle(
    logits: torch.Tensor, temperatures: torch.Tensor, top_ks: torch.Tensor, top_ps: torch.Tensor
) -> torch.Tensor:
    """Returns which tokens may be drawn, bool (num_rows, vocab_size), by sorting, in float64."""
    kept = torch.zeros(logits.shape, dtype=torch.bool)
    for row, values in enumerate(logits.double().cpu()):
        temperature, top_k, top_p = (float(t[row]) for t in (temperatures, top_ks, top_ps))
        if temperature == 0:
            kept[row, values.argmax()] = True
            continue
        scaled, order = (values / temperature).sort(descending=True)
        count = int(top_k) or len(scaled)
        weights = (scaled[:count] - scaled[0]).exp()
        sums = weights.cumsum(0)
        kept[row, order[:count][sums - weights < top_p * sums[-1]]] = True
    return kept


def launch_work(num_rows: int, vocab_size: int, dtype: torch.dtype) -> ops.Op:
    """Returns the bytes of `sample` without top-k and top-p: one read for the maximum, one for the draw.

    SIMPLIFIED: up to 64 further passes of bisection hit L2 while num_rows * vocab_size fits it, and are not
    counted.
    """
    logits = num_rows * vocab_size
    return ops.elementwise(
        "sampling", num_read=2 * logits, num_written=0, dtype=DTYPE_NAMES[dtype], flops=10.0 * logits
    )
