"""Memory probes: HBM copy, read and write, L2, shared memory, and what a launch costs.

Shapes: flat buffers of bytes, whole multiples of a block. Each probe counts the bytes that it must move, so a
result is a bandwidth that a kernel can reach, not a datasheet figure. The ladder HBM : L2 : SRAM comes out of
`measure_ladder`.
Papers: STREAM (McCalpin, 1995) for the copy; Jia et al., arXiv 1804.06826, for the method of L2 and shared
memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .timing import flushed_median_s, graph_median_s
from .tuning import num_sms

BLOCK = 8192  # int32 elements of one program's step: 32 KiB, 64 bytes a thread and load in 4 warps
HBM_PROBE_BYTES = 2 * 2**30  # far beyond any L2
L2_PROBE_BYTES = 16 * 2**20  # half of the near partition of a 50 MB L2, so that no line is evicted
L2_PASSES = 64
SHARED_WARPS = 16
SHARED_THREADS = 32 * SHARED_WARPS
SHARED_LOADS = 16  # loads a thread makes per iteration of the loop
SHARED_LOAD_BYTES = 16
SHARED_ITERATIONS = 4096


@triton.jit
def _copy_kernel(source_ptr, target_ptr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target_ptr + offsets, tl.load(source_ptr + offsets))


@triton.jit
def _write_kernel(target_ptr, value, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target_ptr + offsets, tl.zeros((BLOCK,), dtype=tl.int32) + value)


@triton.jit
def _read_kernel(source_ptr, sums_ptr, num_blocks, passes, BLOCK: tl.constexpr):
    """Every program sums blocks program_id, + num_programs, ..., shifted by one program each pass."""
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    programs = tl.num_programs(0)
    for turn in range(passes):
        first = (tl.program_id(0) + turn) % programs
        for block in tl.range(first, num_blocks, programs, num_stages=1, loop_unroll_factor=2):
            total += tl.load(source_ptr + block * BLOCK + tl.arange(0, BLOCK))
    tl.store(sums_ptr + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def _shared_read_kernel(sums_ptr, iterations, NUM_THREADS: tl.constexpr):
    """Every thread reads 16 bytes of shared memory, 16 times an iteration, free of bank conflicts."""
    lanes = tl.arange(0, NUM_THREADS)
    # The loop is written in PTX so that no compiler drops or hoists a load.
    sums = tl.inline_asm_elementwise(
        """{
        .shared .align 16 .b8 probe_buffer[32768];
        .reg .u32 base, count, acc, v0, v1, v2, v3;
        .reg .pred again;
        mov.u32 base, probe_buffer;
        and.b32 count, $1, 511;
        shl.b32 count, count, 4;
        add.u32 base, base, count;
        st.volatile.shared.u32 [base], $1;
        mov.u32 count, $2;
        mov.u32 acc, 0;
        probe_loop:
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base];
        add.u32 acc, acc, v0;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+8192];
        add.u32 acc, acc, v1;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+16384];
        add.u32 acc, acc, v2;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+24576];
        add.u32 acc, acc, v3;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base];
        add.u32 acc, acc, v0;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+8192];
        add.u32 acc, acc, v1;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+16384];
        add.u32 acc, acc, v2;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+24576];
        add.u32 acc, acc, v3;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base];
        add.u32 acc, acc, v0;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+8192];
        add.u32 acc, acc, v1;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+16384];
        add.u32 acc, acc, v2;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+24576];
        add.u32 acc, acc, v3;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base];
        add.u32 acc, acc, v0;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+8192];
        add.u32 acc, acc, v1;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+16384];
        add.u32 acc, acc, v2;
        ld.volatile.shared.v4.u32 {v0, v1, v2, v3}, [base+24576];
        add.u32 acc, acc, v3;
        sub.u32 count, count, 1;
        setp.ne.u32 again, count, 0;
        @again bra probe_loop;
        mov.u32 $0, acc;
        }""",
        "=r,r,r",
        [lanes, tl.zeros((NUM_THREADS,), dtype=tl.int32) + iterations],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
    tl.store(sums_ptr + tl.program_id(0), tl.sum(sums, 0))


@triton.jit
def _empty_kernel(unused_ptr):
    pass


def copy(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Copies `source` into `target`, both flat int32 of one length, a multiple of BLOCK."""
    _check(source, target)
    _copy_kernel[(source.numel() // BLOCK,)](source, target, BLOCK=BLOCK, num_warps=8)
    return target


def write(target: torch.Tensor, value: int) -> torch.Tensor:
    """Fills `target`, flat int32."""
    _check(target)
    _write_kernel[(target.numel() // BLOCK,)](target, value, BLOCK=BLOCK, num_warps=8)
    return target


def read(source: torch.Tensor, *, passes: int = 1, programs_per_sm: int = 4) -> torch.Tensor:
    """Returns partial sums of `source`, flat int32; they add up to passes * sum, modulo 2^32."""
    _check(source)
    num_blocks = source.numel() // BLOCK
    programs = min(num_blocks, programs_per_sm * num_sms(source.device))
    sums = torch.empty(programs, dtype=torch.int32, device=source.device)
    _read_kernel[(programs,)](source, sums, num_blocks, passes, BLOCK=BLOCK, num_warps=8)
    return sums


def read_shared(sums: torch.Tensor, *, iterations: int) -> torch.Tensor:
    """Reads shared memory in as many CTAs of SHARED_THREADS threads as `sums`, int32, has elements.

    Every thread makes SHARED_LOADS loads of SHARED_LOAD_BYTES in each iteration.
    """
    _shared_read_kernel[(sums.numel(),)](sums, iterations, NUM_THREADS=SHARED_THREADS, num_warps=SHARED_WARPS)
    return sums


def launch_empty(unused: torch.Tensor) -> None:
    """Launches a kernel of one warp that does nothing."""
    _empty_kernel[(1,)](unused, num_warps=1)


def _check(*buffers: torch.Tensor) -> None:
    for buffer in buffers:
        if buffer.dtype != torch.int32 or buffer.ndim != 1 or buffer.numel() % BLOCK:
            raise ValueError(
                f"expected flat int32 of whole {BLOCK}s, got {buffer.dtype} {tuple(buffer.shape)}"
            )
    if len({buffer.numel() for buffer in buffers}) > 1:
        raise ValueError("source and target differ in length")


@dataclass(frozen=True, slots=True)
class Ladder:
    """Measured bandwidths [B/s] and launch times [s] of one GPU.

    copy counts bytes read and written. kernel_gap_s: from one kernel to the next inside a CUDA graph, an
    empty kernel's run included; eager_launch_s: of back-to-back launches from Python.
    """

    hbm_copy_per_s: float
    hbm_read_per_s: float
    hbm_write_per_s: float
    l2_read_per_s: float
    shared_read_per_s: float
    kernel_gap_s: float
    eager_launch_s: float


def measure_ladder() -> Ladder:
    """Measures every rung on the current GPU, in a few seconds."""
    source = torch.randint(0, 2**31 - 1, (HBM_PROBE_BYTES // 4,), dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    resident = source[: L2_PROBE_BYTES // 4]
    sums = torch.empty(2 * num_sms(source.device), dtype=torch.int32, device="cuda")
    shared_bytes = sums.numel() * SHARED_THREADS * SHARED_ITERATIONS * SHARED_LOADS * SHARED_LOAD_BYTES
    read_sram, launch = partial(read_shared, sums, iterations=SHARED_ITERATIONS), partial(launch_empty, sums)
    return Ladder(
        hbm_copy_per_s=copy_work(HBM_PROBE_BYTES).hbm_bytes / flushed_median_s(lambda: copy(source, target)),
        hbm_read_per_s=HBM_PROBE_BYTES / flushed_median_s(lambda: read(source, programs_per_sm=8)),
        hbm_write_per_s=HBM_PROBE_BYTES / flushed_median_s(lambda: write(target, 7)),
        l2_read_per_s=L2_PROBE_BYTES * L2_PASSES / flushed_median_s(lambda: read(resident, passes=L2_PASSES)),
        shared_read_per_s=shared_bytes / flushed_median_s(read_sram),
        kernel_gap_s=graph_median_s([launch] * 200),
        eager_launch_s=_eager_s(launch),
    )


def _eager_s(launch: Callable[[], object], launches: int = 2000) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(launches):
        launch()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) * 1e-3 / launches


def copy_work(num_bytes: int) -> ops.Op:
    """Returns the traffic of copying `num_bytes`."""
    elements = num_bytes // 4
    return ops.elementwise("copy", num_read=elements, num_written=elements, dtype="fp32")
