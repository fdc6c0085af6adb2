"""Prints how fast the kernels are beside torch: `python -m simllm.benchmarks.kernels [group ...]`.

Needs a CUDA GPU. Random data, medians with a cold L2, both sides in the same run. `matrix` and `hbm` are
shares of the datasheet's rates, by the FLOPs and bytes of `hwmodels.ops`; `warps` is the share of an SM's
warps that the kernel's registers and shared memory leave room for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import date
from functools import partial
from typing import Any

import torch
import triton

from simllm.calibrate.compiled import first_kernel
from simllm.kernels import (
    attention_fa1,
    attention_naive,
    attention_prefill,
    attention_prefill_int8,
    probes,
)
from simllm.kernels.occupancy import device_limits, occupancy
from simllm.kernels.timing import flushed_median_s
from simllm.kernels.tuning_inputs import random

from .attention_rows import decode_rows, prefill_rows
from .fusion_rows import fusion_rows
from .matrix_rows import convolution_rows, expert_rows, gemm_rows, quantized_rows, routing_rows
from .row import Row
from .vector_rows import row_rows

GROUPS = {
    "gemm": gemm_rows,
    "quantized": quantized_rows,
    "prefill": prefill_rows,
    "decode": decode_rows,
    "rows": row_rows,
    "experts": expert_rows,
    "routing": routing_rows,
    "convolutions": convolution_rows,
}
# Source: NVIDIA H200 datasheet, SXM, dense (half of the figures with sparsity).
MATRIX_FLOPS_PER_S = {"bf16": 989.5e12, "fp16": 989.5e12, "fp8": 1979e12, "int8": 1979e12, "fp32": 67e12}
HBM_BYTES_PER_S = 4.8e12


def print_rows(title: str, other: str, rows: Iterable[Row]) -> None:
    """Measures rows and prints them; `ratio` above 1 means that ours is faster than `other`."""
    print(
        f"\n{title}\n{'kernel':26} {'shape':30} {'ours us':>9} {f'{other} us':>10} {'ratio':>6} "
        f"{'TFLOP/s':>8} {'TB/s':>6} {'matrix':>6} {'hbm':>5} regs spill shared warps"
    )
    for row in rows:
        print(row_text(row), flush=True)


def row_text(row: Row) -> str:
    """Returns one measured line."""
    compiled = compiled_kernel(row)
    ours_s = flushed_median_s(row.ours)
    other_s = None if row.other is None else flushed_median_s(row.other)
    beside = f"{other_s * 1e6:10.1f} {other_s / ours_s:6.2f}" if other_s else f"{'-':>10} {'-':>6}"
    flops_per_s, bytes_per_s = row.work.flops / ours_s, row.work.hbm_bytes / ours_s
    is_matrix = row.work.unit == "matrix"
    matrix = f"{flops_per_s / MATRIX_FLOPS_PER_S[row.work.dtype]:6.0%}" if is_matrix else f"{'-':>6}"
    full = occupancy(
        device_limits(), registers_per_thread=compiled.n_regs, shared_bytes=compiled.metadata.shared,
        num_warps=compiled.metadata.num_warps,
    )  # fmt: skip
    return (
        f"{row.name:26} {row.shape:30} {ours_s * 1e6:9.1f} {beside} {flops_per_s / 1e12:8.1f} "
        f"{bytes_per_s / 1e12:6.2f} {matrix} {bytes_per_s / HBM_BYTES_PER_S:5.0%} "
        f"{compiled.n_regs:4} {compiled.n_spills:5} {compiled.metadata.shared:6} {full.share:5.0%}"
    )


def compiled_kernel(row: Row) -> Any:
    """Returns the compiled kernel that a row's launch runs: the one it names, else the first."""
    if row.kernel is None:
        return first_kernel(row.ours)
    row.kernel.device_caches.clear()
    row.ours()
    torch.cuda.synchronize()
    return next(iter(row.kernel.device_caches[torch.cuda.current_device()][0].values()))


def print_flash_table() -> None:
    """Prints time and peak memory of naive attention, FlashAttention-1 and -2 side by side."""
    heads, kv_heads, dim = 32, 8, 128
    names = ("naive", "FA1", "FA2", "FA2 int8 QK")
    print("\ncausal attention, 32/8 heads of 128, bf16: microseconds and MiB beyond the inputs")
    print(f"{'tokens':>7} " + " ".join(f"{name:>18}" for name in names))
    for tokens in (512, 1024, 2048, 4096, 8192, 16384):
        q, k, v = random(tokens, heads, dim), random(tokens, kv_heads, dim), random(tokens, kv_heads, dim)
        chunks = attention_prefill.Chunks.of([tokens], [tokens], "cuda")
        launches = (
            partial(attention_naive.naive_attention, q, k, v),
            partial(attention_fa1.fa1_attention, q, k, v),
            partial(attention_prefill.prefill_attention, q, k, v, chunks),
            partial(attention_prefill_int8.prefill_attention_int8, q, k, v, chunks),
        )
        cells = [timed_with_memory(launch) for launch in launches]
        print(
            f"{tokens:7} " + " ".join(f"{seconds * 1e6:10.1f} {mib:7.0f}" for seconds, mib in cells),
            flush=True,
        )


def timed_with_memory(launch: Callable[[], object]) -> tuple[float, float]:
    """Returns (seconds, MiB that one launch allocates at its peak)."""
    launch()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    launch()
    torch.cuda.synchronize()
    mib = (torch.cuda.max_memory_allocated() - before) / 2**20
    return flushed_median_s(launch, budget_s=0.05), mib


def print_ladder() -> None:
    """Prints the measured bandwidths of HBM, L2 and shared memory, and the time of an empty launch."""
    for name, value in asdict(probes.measure_ladder()).items():
        is_rate = name.endswith("per_s")
        print(f"{name:20} {value / 1e12:8.2f} TB/s" if is_rate else f"{name:20} {value * 1e6:8.2f} us")


def main() -> None:
    """Prints the ladder of bandwidths, the tables, fused beside unfused, and the FlashAttention table."""
    names = (*GROUPS, "fusion", "ladder", "flash")
    parser = argparse.ArgumentParser(description="Measure the kernels beside torch.")
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(names)} (default: all)")
    wanted = parser.parse_args().groups or names
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"no group {unknown[0]!r}: choose from {', '.join(names)}")
    if not torch.cuda.is_available():
        raise SystemExit("the kernel benchmark needs a CUDA GPU")
    versions = f"torch {torch.__version__}, Triton {triton.__version__}"
    print(f"{torch.cuda.get_device_name()}, {versions}, {date.today()}")
    torch.backends.cudnn.benchmark = True
    if "ladder" in wanted:
        print_ladder()
    for name, rows in GROUPS.items():
        if name in wanted:
            print_rows(name, "torch", rows())
            torch.cuda.empty_cache()
    if "fusion" in wanted:
        print_rows("fused in one launch, beside our launches in turn", "unfused", fusion_rows())
    if "flash" in wanted:
        print_flash_table()


if __name__ == "__main__":
    main()
