"""What happens to the nodes of a store, and when: by schedule and by chance."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Literal, NamedTuple

import numpy as np

from .store_spec import StoreSpec


class Outage(NamedTuple):
    """One thing that happens to a node at an instant [s]; `number` orders those of one instant.

    lost: with all that it keeps. back: empty. cut, healed: by the network, and no more. is_drawn: by chance.
    """

    at: float
    number: int
    kind: Literal["lost", "back", "cut", "healed"]
    node: int
    is_drawn: bool = False


def outages(spec: StoreSpec, rng: np.random.Generator) -> Iterator[Outage]:
    """Yields what happens, in order of time; without end if losses are drawn."""
    due: list[Outage] = []
    for loss in spec.losses:
        due.append(Outage(loss.at_s, len(due), "lost", loss.node))
        if loss.back_after_s is not None:
            due.append(Outage(loss.at_s + loss.back_after_s, len(due), "back", loss.node))
    for cut in spec.partitions:
        for node in sorted(set(cut.nodes)):
            due.append(Outage(cut.at_s, len(due), "cut", node))
            due.append(Outage(cut.at_s + cut.for_s, len(due), "healed", node))
    if spec.mtbf_s is not None:
        # A memoryless life: exponential, as disks and hosts are rated by their mean time between failures.
        for node in range(spec.num_nodes):
            due.append(Outage(float(rng.exponential(spec.mtbf_s)), len(due), "lost", node, is_drawn=True))
    number = len(due)
    heapify(due)
    while due:
        outage = heappop(due)
        yield outage
        if outage.is_drawn and spec.mtbf_s is not None:
            is_lost = outage.kind == "lost"
            after_s = spec.repair_s if is_lost else float(rng.exponential(spec.mtbf_s))
            kind: Literal["lost", "back"] = "back" if is_lost else "lost"
            heappush(due, Outage(outage.at + after_s, number, kind, outage.node, is_drawn=True))
            number += 1
