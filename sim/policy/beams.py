"""Which beams survive a step of beam search, by a seeded random model.

Every beam's next token has probabilities drawn by stick breaking; of all continuations of all beams the most
probable ones go on, as in beam search. What is modelled is only who continues whom: that decides how long
beams share their blocks.
SIMPLIFIED: probabilities are drawn anew for every beam and step; effect: beams of a real model, whose next
tokens resemble each other, die out somewhat later or sooner.
"""

from __future__ import annotations

import numpy as np

# Concentration of the stick breaking; the entropy of such probabilities is digamma(1 + 3) + 0.577 = 1.83 nats
# on average, a perplexity of 6.
# Source: estimated, chat models' perplexity on their own domain is between 4 and 10; Ewens (1972) for GEM.
CONCENTRATION = 3.0


class BeamModel:
    """The beams of one request: their scores, log probabilities in all."""

    def __init__(self, beam_width: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._width = beam_width
        self._scores = np.full(beam_width, -np.inf)
        self._scores[0] = 0.0  # the prompt is one beam

    def parents(self) -> list[int]:
        """Returns which beam each beam of the next step continues, the most probable first."""
        width = self._width
        sticks = self._rng.beta(1.0, CONCENTRATION, (width, 2 * width))
        left = np.cumprod(1 - sticks, axis=1) / (1 - sticks)
        # As engines do, each beam proposes its best 2 x width tokens.
        scores = self._scores[:, None] + np.log(sticks * left)
        best = np.argsort(-scores, axis=None, kind="stable")[:width]
        self._scores = scores.ravel()[best]
        return [int(place) // (2 * width) for place in best]
