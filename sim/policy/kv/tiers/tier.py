"""One tier as replicas see it: its settings, its content, and a capacity that may follow its use."""

from __future__ import annotations

from array import array

from .....units import GIB
from .figures import figures_of
from .spec import TierSpec
from .store import Evicted, TierStore


class Tier:
    """A tier, perhaps shared by replicas.

    most_blocks: its capacity by its settings. used_at, used_blocks: its content over time, an item
    whenever it changed [s, blocks].
    """

    def __init__(self, spec: TierSpec, store: TierStore, *, block_bytes: float) -> None:
        self.spec = spec
        self.name = spec.tier
        self.figures = figures_of(spec)
        self.store = store
        self.used_at = array("d", [0.0])
        self.used_blocks = array("q", [0])
        self._gib_blocks = GIB / block_bytes
        self._block_gb = block_bytes / 1e9
        self._gb_hours = 0.0
        self._since = 0.0
        self._next_look_at = 0.0 if spec.sizing is None else spec.sizing.interval_s
        self.most_blocks = self._wanted_blocks = store.capacity_blocks
        self._num_looked_up = 0
        self._num_regretted = 0
        self._ghosts: tuple[set[object], set[object]] = (set(), set())

    def adapt(self, now: float) -> list[Evicted]:
        """Brings the capacity up to date; returns what it no longer holds."""
        spec = self.spec
        copies = self.store.copies
        if spec.sizing is None and not spec.pressure and copies is None:
            return self.store.expire(now)
        if spec.sizing is not None and now >= self._next_look_at:
            self._wanted_blocks = self._resized()
            self._next_look_at = now + spec.sizing.interval_s
            self._num_looked_up = self._num_regretted = 0
            self._ghosts = (set(), self._ghosts[0])
        capacity = self._wanted_blocks
        for point in spec.pressure:
            if point.at_s <= now:
                capacity = min(self._wanted_blocks, int(point.capacity_gib * self._gib_blocks))
        if copies is not None:
            capacity = int(capacity * copies.share_up)
        gone = self.store.expire(now)
        if capacity != self.store.capacity_blocks:
            self._keep(now)
            gone += self.store.resize(capacity)
        return gone

    def note_miss(self, key: object, num_blocks: int) -> None:
        """Notes that blocks were looked up and not found; `key` names the first of them."""
        if self.spec.sizing is not None:
            self._num_looked_up += num_blocks
            self._num_regretted += num_blocks if any(key in ghosts for ghosts in self._ghosts) else 0

    def note_hit(self, num_blocks: int) -> None:
        """Notes that blocks were looked up and found."""
        self._num_looked_up += num_blocks

    def note_change(self, now: float, evicted: list[Evicted]) -> None:
        """Notes that its content has changed."""
        if self.used_at[-1] == now:
            self.used_blocks[-1] = self.store.num_used
        else:
            self.used_at.append(now)
            self.used_blocks.append(self.store.num_used)
        if self.spec.sizing is not None:
            self._ghosts[0].update(gone.runs[-1][0] for gone in evicted)

    def usd(self, now: float) -> float:
        """Returns what keeping its capacity has cost by now [USD]."""
        self._keep(now)
        return self._gb_hours * self.figures.usd_per_gb_hour

    def _keep(self, now: float) -> None:
        hours = (now - self._since) / 3600
        self._gb_hours += self.store.capacity_blocks * self._block_gb * hours
        self._since = now

    def _resized(self) -> int:
        """Returns the capacity for the next interval [blocks]."""
        spec = self.spec.sizing
        assert spec is not None, "only a tier that adapts is resized"
        share = self._num_regretted / self._num_looked_up if self._num_looked_up else 0.0
        most, least = self.spec.capacity_gib * self._gib_blocks, spec.min_gib * self._gib_blocks
        if share > spec.regret:
            return int(min(most, self._wanted_blocks * (1 + spec.step)))
        # Between a quarter of that and that it stays, so that it does not swing.
        shrinks = share < spec.regret / 4
        return int(max(least, self._wanted_blocks * (1 - spec.step))) if shrinks else self._wanted_blocks
