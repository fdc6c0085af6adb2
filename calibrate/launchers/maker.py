"""What every family of launchers offers: functions from a point to the ways in which it can be launched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...hwmodels.op_point import OpPoint
from ..buffers import Pools

Launch = Callable[[], object]
Maker = Callable[[OpPoint, Pools], Sequence[Sequence[Launch]]]
"""Returns alternatives; each holds launches of the same work over different buffers."""
