"""Recorded runs of our own making: by hand, and by a toy engine whose front end is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from harness import make_demand, play, step_rows
from toys import ToyStepModel

from simllm.hwmodels.step import Chunk, StepCost, StepShape
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.validate.front_end.client_run import ClientRun
from simllm.sim.validate.front_end.matching import match_requests
from simllm.sim.validate.recorded_steps import RecordedStep
from simllm.sim.validate.visibility import first_seen
from simllm.sim.world.front_end import FrontEndTimes

HERE = Path("run.json")
SYNCHRONOUS = VllmV1Spec(max_num_seqs=64, max_num_batched_tokens=2048, async_scheduling=False)


def step(
    num_decodes: int, *chunks: tuple[int, int], at: tuple[float, float] = (0.0, 1.0), waiting: int = 0
) -> RecordedStep:
    """A step of decodes and of chunks (tokens, context before); at: decided and done [s]."""
    prompts = tuple(Chunk(*chunk) for chunk in chunks)
    return RecordedStep(*at, at[1] - at[0], False, num_decodes, 0, prompts, waiting, 0)


def client_run(steps: Sequence[RecordedStep], **columns: object) -> ClientRun:
    """A run of as many requests as its columns have rows; a column that is not given is all zeros."""
    size = max(len(column) for column in columns.values() if isinstance(column, list))
    zeros = np.zeros(size, dtype=np.int64)
    kept: dict[str, object] = {
        **dict.fromkeys(("sent_at", "first_token_at", "ended_at"), zeros.astype(float)),
        **dict.fromkeys(("prompt_tokens", "seen", "admitted", "first", "last"), zeros),
        "name": "made",
        "steps": steps,
        "num_clients": None,
        "max_num_batched_tokens": 2048,
    }
    kept |= {
        name: np.array(column) if isinstance(column, list) else column for name, column in columns.items()
    }
    return ClientRun(**kept)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Recording(ToyStepModel):
    """A toy that keeps the shapes of its steps."""

    shapes: list[StepShape] = field(default_factory=list)

    def predict(self, shape: StepShape) -> StepCost:
        self.shapes.append(shape)
        return super().predict(shape)


def played(
    times: FrontEndTimes, rows: list[tuple[float, int, int]], *, num_clients: int | None = None
) -> ClientRun:
    """Plays (sent at, prompt tokens, output tokens) on an engine with steps of half a millisecond."""
    model = Recording(base_s=0.5e-3)
    demand = make_demand(rows, num_clients)
    recorder, _ = play(demand, model=model, spec=SYNCHRONOUS, num_blocks=8192, leaps=False, times=times)
    steps = []
    for shape, (_, _, begun_at, took_s, *rest) in zip(
        model.shapes, step_rows(recorder).tolist(), strict=True
    ):
        chunks = tuple(Chunk(chunk.query_len, chunk.context_len) for chunk in shape.chunks)
        decodes, waiting = int(rest[1]), int(rest[6])
        steps.append(RecordedStep(begun_at, begun_at + took_s, took_s, False, decodes, 0, chunks, waiting, 0))
    _, prompts, outputs = (np.array(column) for column in zip(*rows, strict=True))
    sent_at = np.array(recorder.arrived_at)
    found = match_requests(sent_at, prompts, outputs, np.zeros_like(prompts), steps, HERE)
    seen = first_seen(steps, len(rows))
    assert seen is not None
    return client_run(
        steps,
        sent_at=sent_at[found.order].tolist(),
        first_token_at=np.array(recorder.first_token_at)[found.order].tolist(),
        ended_at=np.array(recorder.finished_at)[found.order].tolist(),
        prompt_tokens=prompts[found.order].tolist(),
        seen=[len(steps) if place is None else place for place in seen],
        admitted=found.admitted.tolist(),
        first=found.first.tolist(),
        last=found.last.tolist(),
        num_clients=num_clients,
    )
