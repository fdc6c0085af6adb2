"""How sure and how exact studies are unless told otherwise; light, for the help of commands."""

from __future__ import annotations

CONFIDENCE = 0.95
NUM_SEEDS = 5
# Relative width of the last bracket of a search for goodput.
TOLERANCE = 0.02
