"""The cluster: all replicas behind one router."""

from __future__ import annotations

from collections.abc import Callable

from ...hwmodels.step import Chunk, StepModel, StepShape
from ..policy.live_request import LiveRequest
from ..policy.router import Refusal, Router
from ..request import Request
from .clock import Clock
from .engine import Engine

OnEnd = Callable[[int, float], None]
OnRefusal = Callable[[Request, str], None]


class Cluster:
    """Sends each request to the replica that the router picks, and shows the router what it may see.

    on_end(index, ended_at) is told of every request that ends, refused and rejected ones included [s].
    on_refusal(request, reason) is told of every request that the router sends to no replica.
    """

    def __init__(self, clock: Clock, router: Router, on_end: OnEnd, on_refusal: OnRefusal) -> None:
        self._clock = clock
        self._router = router
        self._on_end = on_end
        self._on_refusal = on_refusal
        self.engines: list[Engine] = []
        self.num_outstanding: list[int] = []
        self.serving: list[int] = []

    def add(self, engine: Engine) -> None:
        """Adds the replica whose number is the count of those before it."""
        self.serving.append(len(self.engines))
        self.engines.append(engine)
        self.num_outstanding.append(0)

    def submit(self, request: Request) -> None:
        """Routes a request and hands it to its replica now, unless the router refuses it."""
        picked = self._router.pick(request, self)
        if isinstance(picked, Refusal):
            self._on_refusal(request, picked)
            self._on_end(request.index, self._clock.now)
            return
        self.num_outstanding[picked] += 1
        self.engines[picked].submit(request)

    def request_ended(self, replica: int, index: int, ended_at: float) -> None:
        """Hears that request `index`, of `replica`, has ended; its client knows at `ended_at` [s]."""
        self.num_outstanding[replica] -= 1
        self._on_end(index, ended_at)

    # -- what a router may see -------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The time [s]."""
        return self._clock.now

    def num_waiting(self, replica: int) -> int:
        """Returns the requests that wait there for admission."""
        return self.engines[replica].scheduler.num_waiting

    def kv_use(self, replica: int) -> float:
        """Returns the share of its KV blocks that requests hold."""
        engine = self.engines[replica]
        return engine.num_blocks_used() / engine.scheduler.kv.num_blocks

    def cached_tokens(self, replica: int, request: Request) -> int:
        """Returns the tokens of the prompt that its prefix cache holds."""
        kv = self.engines[replica].scheduler.kv
        return kv.lookup(LiveRequest(request, request.output_tokens)).num_blocks * kv.block_size

    def prefill_s(self, replica: int, num_tokens: int, context_tokens: int) -> float:
        """Returns the time of `num_tokens` of a prompt behind `context_tokens` computed ones, alone [s]."""
        return alone_s(self.engines[replica].step_model, num_tokens, context_tokens)


def alone_s(model: StepModel, num_tokens: int, context_tokens: int) -> float:
    """Returns the time of one step that holds nothing but one chunk of a prompt [s]."""
    chunks = (Chunk(num_tokens, context_tokens),)
    return model.predict(StepShape(chunks, (), num_tokens, 1, uses_cuda_graph=False)).duration_s
