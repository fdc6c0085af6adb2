"""Session affinity: the turns of a conversation go to one replica, by consistent hashing."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from ...request import Request
from ...spec import Spec
from .base import ClusterView, idlest


class SessionAffinitySpec(Spec):
    """Requests of one session to one replica; those without a session are spread by their row."""

    kind: Literal["session_affinity"] = "session_affinity"
    num_virtual: int = Field(100, ge=1, description="Places of each replica on the ring.")
    load_factor: float | None = Field(
        None,
        ge=1,
        description="Pass on to the next replica on the ring while one has more than this times the mean of "
        "outstanding requests; by default never.",
    )


class SessionAffinityRouter:
    """A ring of hashes with several places per replica; with `load_factor`, bounded loads.

    Source: D. Karger et al., "Consistent Hashing and Random Trees", STOC 1997; V. Mirrokni, M. Thorup,
    M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018.
    """

    def __init__(self, spec: SessionAffinitySpec) -> None:
        self._num_virtual = spec.num_virtual
        self._load_factor = spec.load_factor
        self._ring: list[tuple[int, int]] = []
        self._serving: tuple[int, ...] = ()

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the first replica on the ring from the session's hash on that is not overloaded."""
        counts, num_serving = view.num_outstanding, len(view.serving)
        if tuple(view.serving) != self._serving:
            self._build(view.serving)
        key = f"session {request.session_id}" if request.session_id >= 0 else f"request {request.index}"
        start = bisect_left(self._ring, (_hash(key), -1))
        most = (
            float("inf") if self._load_factor is None else self._load_factor * (sum(counts) + 1) / num_serving
        )
        for offset in range(len(self._ring)):
            replica = self._ring[(start + offset) % len(self._ring)][1]
            if counts[replica] + 1 <= most or num_serving == 1:
                return replica
        return idlest(view)

    def _build(self, serving: Sequence[int]) -> None:
        places = ((_hash(f"replica {r} place {v}"), r) for r in serving for v in range(self._num_virtual))
        self._ring, self._serving = sorted(places), tuple(serving)


def _hash(text: str) -> int:
    """Returns 64 bits that are the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
