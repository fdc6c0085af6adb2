"""Mooncake's Conductor: the replica with the shortest predicted time to the first token, early rejection.

Predicted is what waits before the request, as prefill time, plus its own prefill behind what is cached, and
where another replica holds much more of the prompt, the transfer of the difference.

Source: Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025, algorithm 1.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...request import Request
from ...spec import Spec
from .base import ClusterView, Refusal


class ConductorSpec(Spec):
    """Shortest predicted TTFT; refuses what would miss its SLO."""

    kind: Literal["conductor"] = "conductor"
    ttft_slo_ms: float | None = Field(
        None, gt=0, description="Refuse a request whose first token is predicted to come later."
    )
    max_kv_use: float | None = Field(
        None, gt=0, le=1, description="Refuse a request when every replica's KV is used more than this."
    )


class ConductorRouter:
    """Predicts from prefill times; keeps the prefill work sent to each replica."""

    def __init__(self, spec: ConductorSpec) -> None:
        self._spec = spec
        self._free_at: list[float] = []  # when each replica is predicted to have computed all prompts sent

    def pick(self, request: Request, view: ClusterView) -> int | Refusal:
        """Returns the replica with the shortest predicted TTFT, or which limit none would keep."""
        # SIMPLIFIED: the prefix of another replica is not copied here; effect: without a shared KV store,
        # Mooncake's transfer of a much longer match (its balancing threshold) is missing.
        counts = view.num_outstanding
        self._free_at += [0.0] * (len(counts) - len(self._free_at))
        now = view.now
        best, best_ttft, best_prefill = 0, float("inf"), 0.0
        for replica in view.serving:
            cached = min(view.cached_tokens(replica, request), request.prompt_tokens - 1)
            prefill_s = view.prefill_s(replica, request.prompt_tokens - cached, cached)
            ttft_s = max(self._free_at[replica] - now, 0.0) + prefill_s
            if ttft_s < best_ttft:
                best, best_ttft, best_prefill = replica, ttft_s, prefill_s
        slo_ms, max_kv_use = self._spec.ttft_slo_ms, self._spec.max_kv_use
        if slo_ms is not None and best_ttft > slo_ms / 1000:
            return Refusal("predicted_ttft_exceeds_slo")
        if max_kv_use is not None and all(view.kv_use(replica) > max_kv_use for replica in view.serving):
            return Refusal("kv_use_exceeds_limit")
        self._free_at[best] = max(self._free_at[best], now) + best_prefill
        return best
