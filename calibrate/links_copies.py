"""Copies of one process: between host and GPUs, pinned and pageable, and from GPU to GPU."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..units import MIB
from .links_plan import COPY_LARGEST_BYTES, LinkPoint
from .links_timer import Alone, Launch, measure_eager, measure_graph
from .timer import Measurement

Lane = tuple[int, torch.Tensor, torch.Tensor]
"""The GPU on whose stream a copy runs, where it goes, and what it copies."""

# As many copies of every lane follow each other, so that starting all lanes is lost in them.
COPIES_IN_A_ROW = 8
_DIRECTIONS = {"host_to_device": ("in",), "device_to_host": ("out",), "host_both_ways": ("in", "out")}


class CopyMeasurer:
    """Times copies; it keeps the host's buffers, which are slow to pin."""

    def __init__(self) -> None:
        self._host_buffers: dict[tuple[int, str, bool], torch.Tensor] = {}

    def __call__(self, point: LinkPoint) -> Measurement:
        """Returns the time of one copy, or of one in each direction and GPU at the same time.

        Raises: RuntimeError if memory runs out or the GPUs cannot reach each other.
        """
        lanes = _peer_lanes(point) if point.collective.startswith("peer") else self._host_lanes(point)
        with torch.cuda.device(0):
            measure = measure_graph if point.mode == "graph" else measure_eager
            timing = measure(_launch(lanes), Alone())
        return replace(timing, time_s=timing.time_s / COPIES_IN_A_ROW)

    def _host_lanes(self, point: LinkPoint) -> list[Lane]:
        lanes = []
        for gpu in range(point.num_gpus):
            for direction in _DIRECTIONS[point.collective]:
                host = self._host(gpu, direction, point.implementation == "pinned")[: point.num_bytes]
                there = torch.empty(point.num_bytes, dtype=torch.uint8, device=f"cuda:{gpu}")
                lanes.append((gpu, there, host) if direction == "in" else (gpu, host, there))
        return lanes

    def _host(self, gpu: int, direction: str, is_pinned: bool) -> torch.Tensor:
        """Returns a buffer of its own for each GPU and direction, filled with random bytes."""
        key = (gpu, direction, is_pinned)
        if key not in self._host_buffers:
            buffer = torch.empty(COPY_LARGEST_BYTES, dtype=torch.uint8, pin_memory=is_pinned)
            buffer.view(-1, MIB).copy_(torch.randint(0, 256, (MIB,), dtype=torch.uint8))
            self._host_buffers[key] = buffer
        return self._host_buffers[key]


def _peer_lanes(point: LinkPoint) -> list[Lane]:
    """Returns a copy from GPU 0 to GPU 1, and one back if both ways are meant."""
    if not torch.cuda.can_device_access_peer(0, 1):
        raise RuntimeError("GPUs 0 and 1 cannot reach each other's memory")
    ways = ((0, 1), (1, 0)) if point.collective == "peer_both_ways" else ((0, 1),)
    lanes = []
    for source, target in ways:
        x = torch.empty(point.num_bytes, dtype=torch.uint8, device=f"cuda:{source}").random_()
        lanes.append((source, torch.empty_like(x, device=f"cuda:{target}"), x))
    return lanes


def _launch(lanes: list[Lane]) -> Launch:
    """Returns a launch of several copies in a row on each lane, all lanes at once.

    It begins and ends on GPU 0's current stream: the lanes wait for it, and it for the last of them.
    """
    if len(lanes) == 1:
        _, target, source = lanes[0]
        return lambda: [target.copy_(source, non_blocking=True) for _ in range(COPIES_IN_A_ROW)]
    streams = [torch.cuda.Stream(gpu) for gpu, _, _ in lanes]

    def launch() -> None:
        main = torch.cuda.current_stream(0)
        begun = main.record_event()
        for stream in streams:
            stream.wait_event(begun)
        for _ in range(COPIES_IN_A_ROW):
            for stream, (_, target, source) in zip(streams, lanes, strict=True):
                with torch.cuda.stream(stream):
                    target.copy_(source, non_blocking=True)
        for stream in streams:
            main.wait_stream(stream)

    return launch
