"""Loads that fail: of blocks that an index names but a store has no more, and of corrupt ones.

SIMPLIFIED: how much of a load will fail is known when a request is admitted, which still waits for all of it;
effect: what failed is computed in the step that waited, where vLLM computes it in the one after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log, log1p
from typing import Literal, NamedTuple

from ...live_request import LiveRequest
from ..runs import BlockRuns
from .load_plan import Part
from .nodes import StoreNodes
from .store import Span
from .tier import Tier

Cause = Literal["stale", "checksum", "lost", "unreachable", "version"]
CAUSES: tuple[Cause, ...] = ("stale", "checksum", "lost", "unreachable", "version")
_MASK = (1 << 64) - 1


class VersionedKey(NamedTuple):
    """The key of content computed by a later version of weights and engine than the first."""

    key: object
    version: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Blocks of tier number `tier` that are computed again although they had been stored.

    num_wasted: those loaded in vain. wait_s: until the load has failed [s]. corrupt: the block whose checksum
    is wrong, None if none is.
    """

    tier: int
    cause: Cause
    num_blocks: int
    num_wasted: int = 0
    wait_s: float = 0.0
    corrupt: int | None = None


class StoreWatch:
    """What one replica finds out about its stores when it loads. now() is the instant that it is [s].

    seed: of the draws of corrupt blocks. Which of a request's blocks are corrupt does not depend on how often
    they are looked up.
    """

    def __init__(self, tiers: Sequence[Tier], now: Callable[[], float], seed: int) -> None:
        self._now = now
        self._seed = seed
        self._nodes = {
            number: StoreNodes(tier.store)
            for number, tier in enumerate(tiers)
            if tier.store.copies is not None
        }
        self._tiers = tiers
        changes = {
            at for tier in tiers if tier.spec.store is not None for at in tier.spec.store.version_changes
        }
        self._changes = sorted(changes)

    def at_version(self, runs: BlockRuns) -> BlockRuns:
        """Returns the runs under the keys of the version that it is now."""
        return self._rekeyed(runs, self._version()) if self._changes else runs

    def cut(
        self, live: LiveRequest | None, runs: BlockRuns, parts: Sequence[Part], span: Span, num_tiers: int
    ) -> tuple[Sequence[Part], Failure | None]:
        """Returns what arrives intact of the parts that a request is to load, and what of it does not.

        live: who it is for, None for a turn that is expected. span: blocks that are asked for. num_tiers:
        tiers that they may come from.
        """
        if not self._nodes:
            return parts, None
        found = self._cut_at_corrupt(live, parts)
        if found is not None:
            return found
        limit, position = span[1], parts[-1].span[1] if parts else span[0]
        for number, nodes in self._nodes.items():
            if number < num_tiers and nodes.num_stale(runs, position, limit, self._now()):
                spec = self._tiers[number].spec.store
                assert spec is not None, "only a store has nodes"
                num_blocks = self._extent(nodes, number, runs, position, limit)
                return parts, Failure(number, "stale", num_blocks, wait_s=spec.timeout_s)
        return parts, None

    def missing(self, runs: BlockRuns, start: int, limit: int) -> Failure | None:
        """Returns why blocks from `start` on are computed again; None if no store had them."""
        if any(tier.store.match(runs, start, limit) for tier in self._tiers):
            return None
        version, now = self._version(), self._now()
        for number, nodes in self._nodes.items():
            if nodes.num_cut_off(runs, start, limit):
                return Failure(number, "unreachable", self._extent(nodes, number, runs, start, limit))
            if nodes.num_lost(runs, start, limit, now):
                return Failure(number, "lost", self._extent(nodes, number, runs, start, limit))
            if version:
                before = self._rekeyed(runs, version - 1)
                num_blocks = self._tiers[number].store.match(before, start, limit)
                if num_blocks:
                    return Failure(number, "version", num_blocks)
        return None

    def spoil(self, failure: Failure, runs: BlockRuns) -> None:
        """Lets the store drop a corrupt copy."""
        if failure.corrupt is not None:
            self._nodes[failure.tier].spoil(runs, failure.corrupt)

    def _cut_at_corrupt(
        self, live: LiveRequest | None, parts: Sequence[Part]
    ) -> tuple[Sequence[Part], Failure] | None:
        """Returns the parts up to the first corrupt block, None if there is none."""
        who = (0, 0) if live is None else (1 + live.request.index, live.num_preemptions)
        for place, part in enumerate(parts):
            spec = self._tiers[part.tier].spec.store
            if spec is None or not spec.checksum_failures:
                continue
            draw = _uniform(self._seed, *who, part.span[0])
            # The first corrupt one of equally likely ones is geometric.
            num_intact = log(1 - draw) / log1p(-spec.checksum_failures) if draw else inf
            if num_intact >= part.num_blocks:
                continue
            corrupt, end = part.span[0] + int(num_intact), parts[-1].span[1]
            intact = [*parts[:place], Part(part.tier, (part.span[0], corrupt))]
            wasted = part.span[1] - corrupt
            failure = Failure(part.tier, "checksum", end - corrupt, num_wasted=wasted, corrupt=corrupt)
            return [one for one in intact if one.num_blocks], failure
        return None

    def _extent(self, nodes: StoreNodes, number: int, runs: BlockRuns, start: int, limit: int) -> int:
        """Returns how many blocks a store has, had or names: behind a gap none can be used."""
        position, now, store = start, self._now(), self._tiers[number].store
        while position < limit:
            size = (
                store.tree.match(runs, position, limit)
                or nodes.num_stale(runs, position, limit, now)
                or nodes.num_lost(runs, position, limit, now)
            )
            if not size:
                break
            position += size
        return position - start

    def _version(self) -> int:
        """Returns how many changes there have been."""
        now = self._now()
        return sum(at <= now for at in self._changes)

    def _rekeyed(self, runs: BlockRuns, version: int) -> BlockRuns:
        if not runs or _version_of(runs[0][0]) == version:
            return runs
        plain = ((key.key if isinstance(key, VersionedKey) else key, size) for key, size in runs)
        return tuple((VersionedKey(key, version) if version else key, size) for key, size in plain)


def _version_of(key: object) -> int:
    return key.version if isinstance(key, VersionedKey) else 0


def _uniform(seed: int, *numbers: int) -> float:
    """Returns a number in [0, 1) that the arguments determine.

    Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014 (SplitMix64).
    """
    state = seed & _MASK
    for number in numbers:
        state = (state + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return (state >> 11) / (1 << 53)
