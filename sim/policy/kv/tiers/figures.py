"""Figures of each kind of tier that settings may leave out, with their sources, and unit conversions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .spec import Sharing, TierName, TierSpec

GB = 1e9


@dataclass(frozen=True, slots=True)
class TierFigures:
    """Rates per node [B/s], None where only the GPUs' PCIe limits; until the first byte [s]; price [USD]."""

    read_bytes_per_s: float | None
    write_bytes_per_s: float | None
    latency_s: float
    usd_per_gb_hour: float
    sharing: Sharing


# dram. SIMPLIFIED: the host's memory itself is never the bottleneck; effect: none up to about 400e9 B/s on a
# node, 8 GPUs at full PCIe Gen5 both ways would need more. Latency: that of the PCIe route.
# nvme. Source: Samsung PM9A3 datasheet (PCIe Gen4 x4): 6.9e9 B/s read, 4.1e9 B/s write, sequential; its
# latency is estimated, 100 us with a file system.
# remote. Source: Qin et al., Mooncake, FAST'25: 87 GB/s of four 200 Gb/s NICs, so 87 % of one 200 Gb/s NIC;
# its latency is estimated, 100 us with the look-up of the object.
# Prices. Source: estimated from Google Cloud's list for us-central1: memory of custom N2 machines 0.0042
# USD per GB-hour, local SSD 0.08 USD per GB-month.
_DEFAULTS: Mapping[TierName, TierFigures] = MappingProxyType(
    {
        "dram": TierFigures(None, None, 0.0, 4.2e-3, "replica"),
        "nvme": TierFigures(6.9 * GB, 4.1 * GB, 100e-6, 1.1e-4, "node"),
        "remote": TierFigures(21.75 * GB, 21.75 * GB, 100e-6, 4.2e-3, "global"),
    }
)


def figures_of(spec: TierSpec) -> TierFigures:
    """Returns a tier's figures: its own, else those of its kind."""
    kind = _DEFAULTS[spec.tier]
    own_read = None if spec.read_gb_per_s is None else spec.read_gb_per_s * GB
    own_write = None if spec.write_gb_per_s is None else spec.write_gb_per_s * GB
    return TierFigures(
        read_bytes_per_s=kind.read_bytes_per_s if own_read is None else own_read,
        write_bytes_per_s=kind.write_bytes_per_s if own_write is None else own_write,
        latency_s=kind.latency_s if spec.latency_s is None else spec.latency_s,
        usd_per_gb_hour=kind.usd_per_gb_hour if spec.usd_per_gb_hour is None else spec.usd_per_gb_hour,
        sharing=spec.sharing or kind.sharing,
    )
