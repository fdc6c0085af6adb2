"""What goes down: content that tiers take in, from HBM or from the tier above, and what follows from that."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from ...live_request import LiveRequest
from ...moves import When
from ..runs import BlockRuns
from .job import MoveBook, TierJob
from .nodes import StoreNodes
from .store import Evicted, Span
from .tier import Tier

# Contents whose uses are counted at a time. Source: vLLM, max_tracker_size of CPUOffloadingManager.
MAX_COUNTED = 64_000


class TierWriter:
    """Writes of one replica, by each tier's policy. now() is the instant that it is [s]."""

    def __init__(self, tiers: Sequence[Tier], book: MoveBook, now: Callable[[], float]) -> None:
        self._now = now
        self._tiers = tiers
        self._book = book
        # SIMPLIFIED: uses are counted by content run, not by block; effect: a run used in part counts whole.
        self._uses: OrderedDict[object, int] = OrderedDict()
        self._counts_uses = any(tier.spec.write == "write_through_selective" for tier in tiers)

    def note_use(self, runs: BlockRuns, num_blocks: int) -> None:
        """Counts one use of the runs that the first blocks of a chain lie in."""
        if not self._counts_uses:
            return
        uses = self._uses
        for key, run_blocks in runs:
            uses[key] = uses.pop(key, 0) + 1
            num_blocks -= run_blocks
            if num_blocks <= 0:
                break
        while len(uses) > MAX_COUNTED:
            uses.popitem(last=False)

    def offer(self, number: int, source: str, runs: BlockRuns, span: Span, when: When, turn: int = 0) -> None:
        """Offers a span that `source` has to a tier, which takes it in at once or after enough uses.

        turn: of the conversation that it belongs to.
        """
        tier = self._tiers[number]
        if tier.spec.write == "write_through":
            self.write(number, source, runs, span, when, turn)
        elif tier.spec.write == "write_through_selective":
            for used in self._often_used(runs, span, tier.spec.write_uses):
                self.write(number, source, runs, used, when, turn)

    def write(self, number: int, source: str, runs: BlockRuns, span: Span, when: When, turn: int = 0) -> None:
        """Writes what a tier has not yet of a span, and sends down what must make room for it."""
        tier, now = self._tiers[number], self._now()
        self.send_down(number, tier.adapt(now))
        spans, evicted = tier.store.insert(runs, span, tier.store.use(now, turn))
        num_blocks = sum(end - first for first, end in spans)
        if num_blocks:
            job = TierJob(lambda: self._written(number, runs, spans))
            num_copies = 1 if tier.spec.store is None else tier.spec.store.num_acks
            self._book.move(source, tier.name, num_blocks * num_copies, when, job)
        tier.note_change(now, evicted)
        self.send_down(number, evicted)

    def promote(self, number: int, runs: BlockRuns, span: Span) -> Sequence[Span]:
        """Keeps a span that passes a tier on its way up, at no cost; returns what is to be completed."""
        tier, now = self._tiers[number], self._now()
        spans, evicted = tier.store.insert(runs, span, tier.store.use(now))
        tier.note_change(now, evicted)
        self.send_down(number, evicted)
        return spans

    def arrived(self, number: int, runs: BlockRuns, spans: Sequence[Span]) -> None:
        """Lets what has come into a tier be used; a store's index names it in due time."""
        store, settings = self._tiers[number].store, self._tiers[number].spec.store
        if settings is not None:
            StoreNodes(store).landed(runs, spans)
        if settings is None or not settings.index_delay_s:
            store.complete(runs, spans)
            return

        def named() -> Sequence[LiveRequest]:
            store.complete(runs, spans)
            return ()

        self._book.wake_at(self._now() + settings.index_delay_s, TierJob(named))

    def send_down(self, number: int, evicted: Sequence[Evicted]) -> None:
        """Writes what a tier has evicted to the one below, if that one takes it."""
        below = number + 1
        if below < len(self._tiers) and self._tiers[below].spec.write == "write_back":
            # SIMPLIFIED: it is read before it is overwritten, however long that takes; effect: none unless
            # the tier below is slower than the evictions.
            for runs, span in evicted:
                self.write(below, self._tiers[number].name, runs, span, When.BESIDE)

    def _written(self, number: int, runs: BlockRuns, spans: Sequence[Span]) -> Sequence[LiveRequest]:
        tier, below = self._tiers[number], number + 1
        self.arrived(number, runs, spans)
        if below < len(self._tiers):
            for span in spans:
                self.offer(below, tier.name, runs, span, When.BESIDE)
        return ()

    def _often_used(self, runs: BlockRuns, span: Span, least: int) -> list[Span]:
        """Returns the parts of a span that lie in runs used at least so often."""
        parts: list[Span] = []
        position = 0
        for key, run_blocks in runs:
            first, end = max(position, span[0]), min(position + run_blocks, span[1])
            position += run_blocks
            if first < end and self._uses.get(key, 0) >= least:
                if parts and parts[-1][1] == first:
                    first = parts.pop()[0]
                parts.append((first, end))
            if position >= span[1]:
                break
        return parts
