"""A store in time: its nodes fail and come back, and it copies between them what has too few copies.

One keeper per store. Copies go one after another over a path of their own, which writers and readers share
where the store has a limit for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..policy.kv.tiers.nodes import CopyJob, StoreNodes
from ..policy.kv.tiers.outages import Outage
from ..policy.kv.tiers.tier import Tier
from .link import Link, Links


class StoreKeeper:
    """Lets happen what `due` says, in order of time, until is_over().

    block_bytes: one copy of a block [B]. path: links between nodes of the store.
    """

    def __init__(
        self,
        links: Links,
        tier: Tier,
        due: Iterator[Outage],
        *,
        path: Sequence[Link],
        block_bytes: int,
        is_over: Callable[[], bool],
    ) -> None:
        self._links = links
        self._tier = tier
        self._nodes = StoreNodes(tier.store)
        self._due = due
        self._path = path
        self._block_bytes = block_bytes
        self._is_over = is_over
        self._is_copying = False
        self._nodes.copies.on_wanted = self._copy_next
        self._expect_next()

    def _expect_next(self) -> None:
        outage = next(self._due, None)
        if outage is not None:
            self._links.call_at(outage.at, lambda: self._happens(outage))

    def _happens(self, outage: Outage) -> None:
        if self._is_over():
            return
        self._nodes.happens(outage)
        self._tier.note_change(outage.at, [])
        self._copy_next()
        self._expect_next()

    def _copy_next(self) -> None:
        """Starts the next copy unless one is under way."""
        if self._is_copying:
            return
        job = self._nodes.next_copy()
        if job is not None:
            self._is_copying = True
            self._links.start(self._path, job.num_blocks * self._block_bytes, lambda: self._copied(job))

    def _copied(self, job: CopyJob) -> None:
        self._is_copying = False
        self._nodes.copied(job)
        self._copy_next()
