"""What a run was, beside what happened in it: the facts that head a summary.

Everything here is a plain value, so that `outcome` reads no scenario, profile or device object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...units import MS_PER_S


@dataclass(frozen=True, slots=True)
class Slo:
    """Service level objective: upper limits of one request [ms], None for no limit."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2el_ms: float | None = None

    @property
    def limits_s(self) -> dict[str, float]:
        """The limits that are set, by metric [s]."""
        limits = {"ttft": self.ttft_ms, "tpot": self.tpot_ms, "e2el": self.e2el_ms}
        return {metric: limit / MS_PER_S for metric, limit in limits.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class PoolMeta:
    """The hardware under one pool.

    peak_flops_per_s, hbm_bytes_per_s: of one replica, all its GPUs together, at the dtype that it computes
    in; None where no figure is public, and then MFU or MBU is unknown.
    usd_per_gpu_hour: None if no price is known. frontend_out_s: from a step's end until its tokens reach the
    user [s].
    """

    name: str
    device: str
    num_replicas: int
    num_gpus_per_replica: int
    peak_flops_per_s: float | None
    hbm_bytes_per_s: float | None
    frontend_out_s: float = 0.0
    usd_per_gpu_hour: float | None = None


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Where requests' keys and values lie in one pool.

    reserve: how much contiguous memory a request reserves (`kv.layout.reserve`), None where blocks are paged.
    rounds_up: to a power of two. max_model_len: the longest prompt plus answer [tokens].
    """

    reserve: Literal["max", "pow2", "oracle"] | None = None
    rounds_up: bool = False
    max_model_len: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMeta:
    """Where a run's numbers come from.

    profile: at least `name` and `kind` (calibrated or datasheet) of the hardware profile.
    terms: names of the cost terms, in the order of the columns of the steps table.
    tenants: names, as admission knows them. kv_layouts: by the name of the pool; paged where it is not named.
    lock_yaml: the fully resolved scenario; running it again gives the same files.
    wall_s: real time that the simulation took [s]; shown, never written into a file.
    """

    scenario_name: str
    scenario_sha256: str
    seed: int
    model: str
    profile: Mapping[str, object]
    pools: tuple[PoolMeta, ...]
    terms: tuple[str, ...]
    simllm_version: str
    lock_yaml: str
    slo: Slo = field(default_factory=Slo)
    kv_layouts: Mapping[str, KvLayout] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    wall_s: float = 0.0
