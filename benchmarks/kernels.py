"""Prints how fast the kernels are beside torch: `python -m simllm.benchmarks.kernels [group ...]`.

Needs a CUDA GPU. Random data, medians with a cold L2, both sides in the same run. `peak` is the larger of two
shares: of the matrix units' datasheet rate, and of the datasheet's memory bandwidth, by the FLOPs and bytes
of `hwmodels.ops`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch

from simllm.kernels import attention_fa1, attention_naive, attention_prefill, probes
from simllm.kernels.timing import flushed_median_s
from simllm.kernels.tuning_inputs import random

from .kernel_rows import GROUPS, Row

# Source: NVIDIA H200 datasheet, SXM, dense (half of the figures with sparsity).
MATRIX_FLOPS_PER_S = {"bf16": 989.5e12, "fp16": 989.5e12, "fp8": 1979e12, "int8": 1979e12, "fp32": 67e12}
HBM_BYTES_PER_S = 4.8e12
HEADER = (
    f"{'kernel':26} {'shape':30} {'ours us':>9} {'torch us':>9} {'ratio':>6} "
    f"{'TFLOP/s':>8} {'TB/s':>6} {'peak':>5} regs spill shared"
)


def print_row(row: Row) -> None:
    """Measures one row and prints it; `ratio` above 1 means that ours is faster."""
    row.kernel.device_caches.clear()
    row.ours()
    torch.cuda.synchronize()
    compiled = next(iter(row.kernel.device_caches[torch.cuda.current_device()][0].values()))
    ours_s = flushed_median_s(row.ours)
    torch_s = None if row.torchs is None else flushed_median_s(row.torchs)
    flops_per_s, bytes_per_s = row.work.flops / ours_s, row.work.hbm_bytes / ours_s
    matrix_share = flops_per_s / MATRIX_FLOPS_PER_S[row.work.dtype] if row.work.unit == "matrix" else 0.0
    peak = max(matrix_share, bytes_per_s / HBM_BYTES_PER_S)
    beside = f"{torch_s * 1e6:9.1f} {torch_s / ours_s:6.2f}" if torch_s else f"{'-':>9} {'-':>6}"
    print(
        f"{row.name:26} {row.shape:30} {ours_s * 1e6:9.1f} {beside} {flops_per_s / 1e12:8.1f} "
        f"{bytes_per_s / 1e12:6.2f} {peak:5.0%} "
        f"{compiled.n_regs:4} {compiled.n_spills:5} {compiled.metadata.shared:6}",
        flush=True,
    )


def print_flash_table() -> None:
    """Prints time and peak memory of naive attention, FlashAttention-1 and -2 side by side."""
    heads, kv_heads, dim = 32, 8, 128
    print("\ncausal attention, 32/8 heads of 128, bf16: microseconds and MiB beyond the inputs")
    print(f"{'tokens':>7} {'naive':>18} {'FA1':>18} {'FA2':>18}")
    for tokens in (512, 1024, 2048, 4096, 8192, 16384):
        q, k, v = random(tokens, heads, dim), random(tokens, kv_heads, dim), random(tokens, kv_heads, dim)
        chunks = attention_prefill.Chunks.of([tokens], [tokens], "cuda")
        launches = (
            partial(attention_naive.naive_attention, q, k, v),
            partial(attention_fa1.fa1_attention, q, k, v),
            partial(attention_prefill.prefill_attention, q, k, v, chunks),
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


def main() -> None:
    """Prints the ladder of bandwidths, the table, and the FlashAttention table."""
    parser = argparse.ArgumentParser(description="Measure the kernels beside torch.")
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)}, ladder, flash (default: all)")
    wanted = parser.parse_args().groups
    if not torch.cuda.is_available():
        raise SystemExit("the kernel benchmark needs a CUDA GPU")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    torch.backends.cudnn.benchmark = True
    if not wanted or "ladder" in wanted:
        for name, value in asdict(probes.measure_ladder()).items():
            print(
                f"{name:20} {value / 1e12:8.2f} TB/s"
                if name.endswith("per_s")
                else f"{name:20} {value * 1e6:8.2f} us"
            )
    print(HEADER)
    for name, rows in GROUPS.items():
        if not wanted or name in wanted:
            for row in rows():
                print_row(row)
            torch.cuda.empty_cache()
    if not wanted or "flash" in wanted:
        print_flash_table()


if __name__ == "__main__":
    main()
