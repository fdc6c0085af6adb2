"""What a process does that measures links: as one rank of several, or alone for copies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from ..units import US
from .links_copies import CopyMeasurer
from .links_launch import RankGroup, make_launch, make_products
from .links_plan import LinkPoint
from .links_samples import LinkSample
from .links_timer import measure_eager, measure_graph
from .timer import Measurement

Report = Callable[[LinkSample | str], None]
REFUSALS = (RuntimeError, ValueError, NotImplementedError, AssertionError)
MAX_ERROR_CHARACTERS = 200


def one_line(error: object) -> str:
    """Returns an error as one line of bounded length."""
    return (" ".join(str(error).split()) or type(error).__name__)[:MAX_ERROR_CHARACTERS]


def run_rank(rank: int, num_gpus: int, points: Sequence[LinkPoint], rendezvous: str, results: Any) -> None:
    """Measures points as rank `rank`; rank 0 reports. rendezvous: a file that does not exist yet.

    With GPUs every rank has its own and talks through NCCL; without, through gloo on the CPU.
    An error after the ranks began to time a point ends the process: the ranks may wait for each other.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for the rows
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # ranks of one host; its name need not resolve
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if has_gpu else "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=num_gpus,
        device_id=device if has_gpu else None,
    )
    group = RankGroup(rank, num_gpus, device)
    try:
        for point in points:
            sample = _measure_point(point, group)
            if rank == 0:
                results.put(sample)
    except REFUSALS as error:
        results.put(f"rank {rank}: {one_line(error)}")
        raise SystemExit(1) from None
    dist.destroy_process_group()


def run_copies(points: Sequence[LinkPoint], results: Any) -> None:
    """Measures copies in one process and reports each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    measure_copy = CopyMeasurer()
    for point in points:
        try:
            results.put(_sample(point, measure_copy(point)))
        except REFUSALS as error:
            results.put(LinkSample(point, error=one_line(error)))


def _measure_point(point: LinkPoint, group: RankGroup) -> LinkSample:
    """Returns the sample of a point; what no rank could prepare is a row with its error."""
    error = ""
    try:
        launch = make_launch(point, group)
    except REFUSALS as refusal:
        error = one_line(refusal)
    error = group.first_error(error)
    if error:
        return LinkSample(point, error=error)
    if point.mode == "after_gemm":
        return _measure_after_gemm(point, group)
    measure = measure_graph if point.mode == "graph" else measure_eager
    return _sample(point, measure(launch, group))


def _measure_after_gemm(point: LinkPoint, group: RankGroup) -> LinkSample:
    """Returns what the all-reduce adds to the product before it."""
    alone, both = (measure_graph(launch, group) for launch in make_products(point, group))
    added_s = max(0.0, both.time_s - alone.time_s)
    spread_s = both.spread * both.time_s + alone.spread * alone.time_s
    return LinkSample(
        point,
        time_us=added_s / US,
        spread=spread_s / added_s if added_s else 0.0,
        num_runs=both.num_runs,
        is_noisy=both.is_noisy or alone.is_noisy,
        gemm_us=alone.time_s / US,
    )


def _sample(point: LinkPoint, timing: Measurement) -> LinkSample:
    return LinkSample(
        point,
        time_us=timing.time_s / US,
        spread=timing.spread,
        num_runs=timing.num_runs,
        is_noisy=timing.is_noisy,
    )
