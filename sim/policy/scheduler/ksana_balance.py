"""How KsanaLLM balances the batches of pipeline parallelism: what goes to which, and what moves over.

With `max_pp_batch_num` batches in the pipeline each has its own queues. New requests go to the batch with the
least load; a batch whose load is far above the mean gives requests to the others before it is scheduled.

Source: KsanaLLM src/ksana_llm/batch_scheduler/workload_balance/pp_multibatch_balancer.cpp, commit c451219c
(behaviour, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

BalanceStrategy = Literal["static", "count", "tokens", "uncached"]
"""Strategies 1 to 4: `static` counts requests, too, but moves none once they are placed."""

_THRESHOLD_FACTOR = 1.2
_FEWEST_REQUESTS = 5
_TOKENS_PER_LOAD = 200


def request_load(strategy: BalanceStrategy, *, num_tokens: int, num_cached: int) -> int:
    """Returns the load of a request with so many tokens, `num_cached` of them with KV."""
    if strategy == "tokens":
        return num_tokens // _TOKENS_PER_LOAD + 1
    if strategy == "uncached":
        return max(num_tokens - num_cached, 1)
    return 1


def place(request_loads: Sequence[int], batch_loads: Sequence[int]) -> list[int]:
    """Returns the batch of each request: in their order, each to the one with the least load by then."""
    loads, batches = list(batch_loads), []
    for load in request_loads:
        batch = loads.index(min(loads))
        loads[batch] += load
        batches.append(batch)
    return batches


def excess(batch_loads: Sequence[int], batch: int, *, num_requests: int) -> int:
    """Returns the load that a batch of `num_requests` requests may give to the others, 0 if none."""
    if len(batch_loads) < 2 or num_requests < _FEWEST_REQUESTS:
        return 0
    ideal = -(-sum(batch_loads) // len(batch_loads))
    is_far_above = batch_loads[batch] > int(ideal * _THRESHOLD_FACTOR)
    return batch_loads[batch] - ideal if is_far_above else 0


def to_give(waiting_loads: Sequence[int], decoding_loads: Sequence[int], most: int) -> tuple[int, int]:
    """Returns how many requests go, without passing `most`, by the loads of a batch's queues.

    First from the waiting queue's head on; only if it is empty then, from the decoding queue's tail on.
    """
    num_waiting, left = _as_many_as_fit(waiting_loads, most)
    if num_waiting < len(waiting_loads):
        return num_waiting, 0
    return num_waiting, _as_many_as_fit(decoding_loads[::-1], left)[0]


def _as_many_as_fit(loads: Sequence[int], room: int) -> tuple[int, int]:
    """Returns how many of the first loads fit, and the room they leave."""
    for number, load in enumerate(loads):
        if load > room:
            return number, room
        room -= load
    return len(loads), room
