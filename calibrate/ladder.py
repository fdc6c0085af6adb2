"""The ladder of measured rates: HBM, L2, shared memory, and what a launch costs, from the probes of a sweep.

A rung is the median of its samples; beside it stand the worst and the best of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from ..hwmodels.device import DeviceSpec
from ..units import DTYPE_BYTES, US
from .fit import round_significant
from .samples import Sample

_PROBE = "probe_"
_TIMES = ("graph_gap", "eager_launch")


def ladder_of(samples: Sequence[Sample], device: DeviceSpec) -> dict[str, dict[str, Any]]:
    """Returns every rung that the samples hold: value, low, high, unit and number of samples."""
    measured: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        name = sample.point.op.removeprefix(_PROBE)
        if name == sample.point.op or not _counts(sample, device):
            continue
        time_s = sample.time_us * US
        measured[name].append(time_s if name in _TIMES else sample.hbm_bytes / time_s)
    return {name: _rung(name, measured[name]) for name in sorted(measured)}


def _counts(sample: Sample, device: DeviceSpec) -> bool:
    """Returns whether a probe measured what it is named after.

    L2's must have stayed in it. Launches from Python always spread, as what else the host does comes between.
    """
    if sample.point.op == "probe_l2" and not _fits_l2(sample, device):
        return False
    return sample.is_usable and (not sample.is_noisy or sample.point.op == "probe_eager_launch")


def _fits_l2(sample: Sample, device: DeviceSpec) -> bool:
    """Returns whether a probe of L2 stayed in it."""
    return sample.point.n * DTYPE_BYTES[sample.point.dtype] <= device.l2_bytes


def _rung(name: str, values: Sequence[float]) -> dict[str, Any]:
    return {
        "value": round_significant(median(values)),
        "low": round_significant(min(values)),
        "high": round_significant(max(values)),
        "unit": "s" if name in _TIMES else "B/s",
        "num_samples": len(values),
    }
