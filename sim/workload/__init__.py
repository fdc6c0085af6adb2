"""Demand: what is asked of the system. `spec.py` describes it, `build.py` makes its rows."""

from __future__ import annotations

from .build import build_demand, resolve_workload
from .demand import Demand
from .spec import WorkloadSpec
from .workload_file import write_demand

__all__ = ["Demand", "WorkloadSpec", "build_demand", "resolve_workload", "write_demand"]
