"""Times the points of a plan on the current GPU."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..errors import CalibrationError
from ..hwmodels.op_point import OpPoint
from ..units import GIB
from .buffers import Pools
from .compiled import describe, first_kernel
from .launchers import make_alternatives
from .timer import BRIEF, SUSTAINED, Measurement, fastest, measure, measure_eager

POOL_BYTES = 8 * GIB


class GpuMeasurer:
    """A `Measurer` that runs the kernels; it keeps the pools of random data between points."""

    def __init__(self) -> None:
        self._pools = Pools(POOL_BYTES)

    def __call__(self, point: OpPoint) -> Measurement:
        """Raises: CalibrationError if a kernel broke the CUDA context, so that no other can run."""
        try:
            return self._measure(point)
        except RuntimeError as error:
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                raise CalibrationError(f"{point} broke the GPU's context: {str(error)[:200]}") from None
            raise

    def _measure(self, point: OpPoint) -> Measurement:
        launches = fastest(make_alternatives(point, self._pools))
        compiled = describe(first_kernel(launches[0]))
        if point.op == "probe_eager_launch":
            timing = measure_eager(launches[0])
        else:
            timing = measure(launches, SUSTAINED if point.sustained else BRIEF)
        return replace(timing, compiled=compiled)
