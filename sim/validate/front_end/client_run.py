"""One run as its client and its engine recorded it, request by request: what the front end's fit takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....errors import TraceError
from ...workload.traces.vllm_bench import BenchResult
from ..measured import Floats, measured_run
from ..recorded_steps import RecordedStep, read_steps
from ..visibility import first_seen
from .matching import Ints, match_requests


@dataclass(frozen=True, slots=True)
class ClientRun:
    """Requests in the order of their admission, as columns of equal length, and the record of steps.

    sent_at, first_token_at, ended_at: the client's instants [s]. seen, admitted, first, last: the steps by
    whose decision the engine had seen it, where its prompt began, and that gave its first and last token;
    `len(steps)` or more after the record's end.
    num_clients: of a closed loop. max_num_batched_tokens: what a step may hold.
    """

    name: str
    steps: Sequence[RecordedStep]
    sent_at: Floats
    first_token_at: Floats
    ended_at: Floats
    prompt_tokens: Ints
    seen: Ints
    admitted: Ints
    first: Ints
    last: Ints
    num_clients: int | None
    max_num_batched_tokens: int


def client_run(path: Path, steps_path: Path, name: str, max_num_batched_tokens: int) -> ClientRun:
    """Returns a result file's requests with their steps.

    Raises: TraceError for a file that does not tell when its requests were sent and answered, or whose
    record of steps is not theirs or has no queue lengths.
    """
    bench = BenchResult(path, None)
    run, steps = measured_run(bench), read_steps(steps_path)
    if run.sent_at is None:
        raise TraceError(path, None, "has no `start_times`: when each request was sent")
    if not steps:
        raise TraceError(steps_path, None, "holds no steps")
    cached = np.zeros_like(run.prompt_tokens) if run.cached_tokens is None else run.cached_tokens
    found = match_requests(run.sent_at, run.prompt_tokens, run.output_tokens, cached, steps, path)
    seen = first_seen(steps, len(found.order))
    if seen is None:
        raise TraceError(steps_path, None, "has no `num_waiting`: when the engine saw each request")
    order = found.order
    return ClientRun(
        name=name,
        steps=steps,
        sent_at=run.sent_at[order],
        first_token_at=(run.sent_at + run.ttft_s)[order],
        ended_at=(run.sent_at + run.e2el_s)[order],
        prompt_tokens=run.prompt_tokens[order],
        seen=np.array([len(steps) if place is None else place for place in seen]),
        admitted=found.admitted,
        first=found.first,
        last=found.last,
        num_clients=bench.num_clients,
        max_num_batched_tokens=max_num_batched_tokens,
    )
