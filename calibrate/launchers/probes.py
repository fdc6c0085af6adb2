"""The ladder of memory bandwidths and what a launch costs, by the probes of `kernels`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from ...hwmodels.op_point import OpPoint
from ...kernels import probes
from ..buffers import Pools
from .maker import Launch, Maker

NUM_GAPS = 200  # empty kernels in a row, so that the start of their graph is lost in them


def _words(point: OpPoint, pools: Pools) -> torch.Tensor:
    """Returns `n` random words of 32 bits."""
    return pools.take("int8", 4 * point.n).view(torch.int32)


def _copy(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    source = _words(point, pools)
    return [[partial(probes.copy, source, torch.empty_like(source))]]


def _read(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    return [[partial(probes.read, _words(point, pools), programs_per_sm=8)]]


def _write(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    return [[partial(probes.write, torch.empty(point.n, dtype=torch.int32, device=pools.device), 7)]]


def _l2(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    return [[partial(probes.read, _words(point, pools), passes=point.m)]]


def _sram(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """Every thread reads 16 bytes at a time, `m` times."""
    threads = point.n * 4 // probes.SHARED_LOAD_BYTES
    sums = torch.empty(threads // probes.SHARED_THREADS, dtype=torch.int32, device=pools.device)
    return [[partial(probes.read_shared, sums, iterations=point.m // probes.SHARED_LOADS)]]


def _empty(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    unused = torch.empty(1, dtype=torch.int32, device=pools.device)
    return [[partial(probes.launch_empty, unused)] * NUM_GAPS]


MAKERS: Mapping[tuple[str, str], Maker] = {
    ("probe_hbm_copy", "triton"): _copy,
    ("probe_hbm_read", "triton"): _read,
    ("probe_hbm_write", "triton"): _write,
    ("probe_l2", "triton"): _l2,
    ("probe_sram", "triton"): _sram,
    ("probe_graph_gap", "triton"): _empty,
    ("probe_eager_launch", "triton"): _empty,
}
