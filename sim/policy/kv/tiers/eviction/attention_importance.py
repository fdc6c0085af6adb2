"""What attention looks at least first."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class AttentionImportanceEviction(Eviction):
    """Least important per block first, counted from the rank of the last eviction on.

    scores: importance of content by its id, from a scored trace; what has none gets one by a power law with
    `exponent`: the share of content that is more important than x is x ** -exponent, x >= 1. The same
    content always gets the same.

    Source: Zhang et al., H2O, NeurIPS 2023, section 3: accumulated attention follows a power law.
    """

    def __init__(self, exponent: float, scores: Mapping[int, float]) -> None:
        self._exponent = exponent
        self._scores = scores

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns its importance, from the last eviction's rank on."""
        score = self._scores.get(run.key) if isinstance(run.key, int) else None
        if score is None:
            share = (zlib.crc32(repr(run.key).encode()) + 1) / 2**32
            score = share ** (-1 / self._exponent)
        return (use.floor + score, use.number)
