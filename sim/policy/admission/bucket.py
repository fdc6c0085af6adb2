"""A token bucket: a rate that holds in the long run, and a burst that may come at once.

Source: ITU-T Recommendation I.371, the generic cell rate algorithm, in its leaky-bucket form.
"""

from __future__ import annotations

# Rounding of a level that was refilled in many small steps must not refuse what the rate allows.
_TOLERANCE = 1e-9


class Bucket:
    """Holds up to `burst` units and is refilled by `rate` units per second; full at first."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._filled_at = 0.0

    def holds(self, amount: float, now: float) -> bool:
        """Returns whether `amount` may be taken at `now` [s], which never goes back.

        More than a whole burst may be taken from a full bucket, which then owes it: else it never could.
        """
        self._level = min(self._burst, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._level >= min(amount, self._burst) * (1 - _TOLERANCE)

    def take(self, amount: float) -> None:
        """Takes what it holds."""
        self._level -= amount
