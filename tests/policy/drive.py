"""A scheduler and what is in flight: the shortest way to write down a story in steps."""

from __future__ import annotations

from harness import kv_for

from simllm.sim.policy.batch import Batch
from simllm.sim.policy.scheduler import make_scheduler
from simllm.sim.policy.scheduler.engine_spec import EngineSpec
from simllm.sim.request import ContentRun, Request


class Story:
    """One replica's scheduler; requests are numbered from 0 in the order in which they are added."""

    def __init__(
        self, spec: EngineSpec, *, num_blocks: int = 1000, block_size: int = 16, caches: bool = False
    ) -> None:
        self.kv = kv_for(spec, num_blocks=num_blocks, block_size=block_size, caches=caches)
        self.scheduler = make_scheduler(
            spec, kv=self.kv, max_model_len=getattr(spec, "max_model_len", None) or 1 << 20
        )
        self.num_added = 0

    def add(self, prompt_tokens: int, output_tokens: int, *content: tuple[int, int]) -> str | None:
        """Queues a request, its content as (id, tokens) runs; returns why it is refused, if it is."""
        runs = tuple(ContentRun(*run) for run in content) or None
        request = Request(self.num_added, 0.0, prompt_tokens, output_tokens, runs)
        self.num_added += 1
        return self.scheduler.add(request)

    def step(self) -> Batch:
        """Decides the next step, which must hold something."""
        batch = self.scheduler.schedule()
        assert batch is not None
        self.scheduler.check()
        return batch

    def end(self, batch: Batch) -> None:
        """Processes the output of a step."""
        self.scheduler.finish(batch.finishing)
        self.scheduler.check()

    def run(self, num_steps: int = 1) -> Batch:
        """Decides steps and processes their outputs one after another; returns the last."""
        for _ in range(num_steps):
            batch = self.step()
            self.end(batch)
        return batch

    @property
    def num_used(self) -> int:
        """Blocks that requests hold."""
        return self.kv.num_blocks - self.kv.num_free


def chunks(batch: Batch) -> list[tuple[int, int]]:
    """Returns the prefill chunks as (new tokens, computed tokens before them)."""
    return [(chunk.query_len, chunk.context_len) for chunk in batch.chunks]


def admitted(batch: Batch) -> list[int]:
    """Returns the numbers of the requests that the step admitted."""
    return [live.index for live in batch.admitted]


def finishing(batch: Batch) -> list[int]:
    """Returns the numbers of the requests that get their last token from the step."""
    return [live.index for live in batch.finishing]
