"""The wires behind the tiers: PCIe of each GPU, disks and network of each node, and a store that all share.

A route is a sequence of links. Between HBM and a lower tier the bytes pass the host's memory without being
kept there, so that such a move takes the disk's or the network's links and PCIe at once.

SIMPLIFIED: copies take nothing from the kernels beside them; effect: a copy at full PCIe rate takes about one
per cent of HBM's bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf

from ...hwmodels.collectives import PCIE_LATENCY_S
from ...hwmodels.link_profile import LinkMode, LinkModel
from ...hwmodels.profile import HardwareProfile
from ..policy.kv.tiers.figures import GB, TierFigures, figures_of
from ..policy.kv.tiers.spec import TierSpec
from .link import Link, Links
from .transfer import Route, TierMover

# Share of PCIe's datasheet rate that pinned copies reach. Source: 55.6e9 of 63e9 B/s on H200, docs/links.md.
PCIE_EFFICIENCY = 0.88
# A host whose PCIe rate no file names: Gen4 x16. Source: PCI-SIG, PCI Express Base Specification.
DEFAULT_PCIE_BYTES_PER_S = 31.5 * GB
# A size at which a copy reaches its full rate [B].
LARGE_BYTES = 256e6

H2D, D2H, BOTH_WAYS = "host_to_device", "device_to_host", "host_both_ways"


class PciePort:
    """What pinned copies between the host and `num_gpus` GPUs reach in one direction, side by side.

    Calibrated where the profile has such copies, else by the datasheet.
    """

    def __init__(self, profile: HardwareProfile, direction: str, num_gpus: int) -> None:
        model, self._mode = LinkModel(profile.links), _mode(profile, direction)
        self._predict: Callable[[float], float] | None = None
        if self._mode is not None:
            self._predict = partial(_copy_s, model, direction, num_gpus, self._mode)
            latency_s, full_s = self._predict(0.0), self._predict(LARGE_BYTES)
            self.latency_s = latency_s
            self.bytes_per_s = num_gpus * LARGE_BYTES / (full_s - latency_s)
        else:
            rate = profile.device.pcie_bytes_per_s_per_direction or DEFAULT_PCIE_BYTES_PER_S
            self.latency_s = PCIE_LATENCY_S
            self.bytes_per_s = num_gpus * rate * PCIE_EFFICIENCY

    @property
    def piece_s(self) -> Callable[[float], float] | None:
        """What one copy takes alone, by its size [B] on one GPU; None where it was not measured."""
        return self._predict


def _mode(profile: HardwareProfile, direction: str) -> LinkMode | None:
    model = LinkModel(profile.links)
    modes: tuple[LinkMode, ...] = ("graph", "eager")
    return next((mode for mode in modes if model.has(direction, "pinned", mode)), None)


def _copy_s(model: LinkModel, direction: str, num_gpus: int, mode: LinkMode, num_bytes: float) -> float:
    return model.predict(direction, "pinned", num_bytes=num_bytes, num_gpus=num_gpus, mode=mode).time_s


class Wiring:
    """The links of one pool, whose replicas lie side by side on nodes.

    tiers: from the fastest. num_gpus: of one replica. A tier that is not shared has links of its own.
    """

    def __init__(
        self,
        links: Links,
        profile: HardwareProfile,
        tiers: Sequence[TierSpec],
        *,
        num_gpus: int,
        gpus_per_node: int,
        num_layers: int,
    ) -> None:
        self._links = links
        self._tiers = tiers
        self._num_gpus = num_gpus
        self._replicas_per_node = max(1, gpus_per_node // num_gpus)
        self._num_layers = num_layers
        self._ports = {direction: PciePort(profile, direction, num_gpus) for direction in (H2D, D2H)}
        self._both_ways_bytes_per_s: float | None = None
        if _mode(profile, BOTH_WAYS) is not None:
            self._both_ways_bytes_per_s = 2 * PciePort(profile, BOTH_WAYS, num_gpus).bytes_per_s
        # A copy inside HBM reads and writes each byte.
        hbm_bytes_per_s = profile.device.hbm_bytes_per_s * profile.efficiency.hbm
        self._hbm_copy_bytes_per_s = num_gpus * hbm_bytes_per_s / 2
        self._made: dict[str, Link] = {}

    @property
    def links(self) -> Mapping[str, Link]:
        """All links made so far, by name."""
        return self._made

    def node_of(self, replica: int) -> int:
        """Returns the node on which a replica runs."""
        return replica // self._replicas_per_node

    def mover(self, replica: int) -> TierMover:
        """Returns what times the moves of a replica: between HBM, the host and all tiers below."""
        routes = self._pcie_routes(replica)
        from_host, to_host = routes["dram", "hbm"], routes["hbm", "dram"]
        lower = [tier for tier in self._tiers if tier.tier != "dram"]
        for tier in lower:
            figures = figures_of(tier)
            down, up = self._way(tier, figures, replica, "in"), self._way(tier, figures, replica, "out")
            latency_s = figures.latency_s
            routes["dram", tier.tier] = Route(down, latency_s)
            routes[tier.tier, "dram"] = Route(up, latency_s)
            routes["hbm", tier.tier] = Route((*to_host.links, *down), latency_s + to_host.latency_s)
            routes[tier.tier, "hbm"] = Route((*up, *from_host.links), latency_s + from_host.latency_s)
        for source in lower:
            for target in lower:
                if source is not target:
                    path = routes[source.tier, "dram"].links + routes["dram", target.tier].links
                    latency_s = figures_of(source).latency_s + figures_of(target).latency_s
                    routes[source.tier, target.tier] = Route(path, latency_s)
        return TierMover(self._links, routes, num_layers=self._num_layers)

    def store_path(self, tier: TierSpec, owner: int) -> tuple[Link, ...]:
        """Returns the links between nodes of a store; owner: number of the GPUs' node that it belongs to."""
        if tier.store is None:
            return ()
        name = tier.tier if figures_of(tier).sharing == "global" else f"{tier.tier}.node{owner}"
        path = (self._link(f"{name}.rebuild", tier.store.rebuild_gb_per_s * GB),)
        if tier.store_gb_per_s is None:
            return path
        ways = (self._link(f"{tier.tier}.store.{way}", tier.store_gb_per_s * GB) for way in ("out", "in"))
        return (*path, *ways)

    def _pcie_routes(self, replica: int) -> dict[tuple[str, str], Route]:
        copies = self._link(f"hbm.{replica}", self._hbm_copy_bytes_per_s)
        routes = {("hbm", "hbm"): Route((copies,))}
        for direction, ends in ((H2D, ("dram", "hbm")), (D2H, ("hbm", "dram"))):
            port = self._ports[direction]
            path = [self._link(f"pcie.{replica}.{direction}", port.bytes_per_s)]
            if self._both_ways_bytes_per_s is not None:
                # Copies both ways at once are each a little slower than one way alone, where measured.
                path.append(self._link(f"pcie.{replica}.both_ways", self._both_ways_bytes_per_s))
            routes[ends] = Route(tuple(path), port.latency_s, port.piece_s, self._num_gpus)
        return routes

    def _way(self, tier: TierSpec, figures: TierFigures, replica: int, direction: str) -> tuple[Link, ...]:
        """Returns the links between a replica's host and a tier below, in one direction."""
        rate = figures.read_bytes_per_s if direction == "out" else figures.write_bytes_per_s
        owner = f"replica{replica}" if figures.sharing == "replica" else f"node{self.node_of(replica)}"
        way = (self._link(f"{tier.tier}.{owner}.{direction}", rate or inf),)
        if tier.store_gb_per_s is None:
            return way
        return (*way, self._link(f"{tier.tier}.store.{direction}", tier.store_gb_per_s * GB))

    def _link(self, name: str, bytes_per_s: float) -> Link:
        if name not in self._made:
            self._made[name] = Link(name, bytes_per_s)
        return self._made[name]
