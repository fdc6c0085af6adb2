"""What comes up before it is asked for: content of lower tiers that waiting or expected requests need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...live_request import LiveRequest
from ...moves import When
from ..runs import BlockRuns
from .failures import StoreWatch
from .job import MoveBook, TierJob
from .load_plan import Part, find_parts
from .spec import PrefetchSpec
from .tier import Tier
from .writer import TierWriter

KI = 1024
# Weight of the newest pause between two turns in the expected one. Source: estimated; the last five count.
PAUSE_WEIGHT = 0.2


def timeout_s(spec: PrefetchSpec, num_tokens: int) -> float:
    """Returns how long a request waits for so many tokens: 2.8 s for 8,192 by SGLang's figures.

    Source: SGLang HiRadixCache, prefetch_timeout_base and prefetch_timeout_per_ki_token.
    """
    return min(spec.timeout_max_s, spec.timeout_base_s + spec.timeout_per_ki_token_s * num_tokens / KI)


class Fetch:
    """Parts on their way into the first tier, a piece at a time.

    live: who may wait for them until `gives_up_at` [s], None for a turn that is expected. is_waited_for: the
    request has been set aside for it.
    """

    def __init__(
        self, live: LiveRequest | None, runs: BlockRuns, parts: Sequence[Part], until: float
    ) -> None:
        self.live = live
        self.runs = runs
        self.parts = list(parts)
        self.gives_up_at = until
        self.is_over = False
        self.is_waited_for = False


class Prefetcher:
    """Prefetches of one replica into its first tier."""

    def __init__(
        self,
        spec: PrefetchSpec,
        tiers: Sequence[Tier],
        book: MoveBook,
        writer: TierWriter,
        now: Callable[[], float],
        *,
        watch: StoreWatch,
        block_size: int,
    ) -> None:
        self._spec = spec
        self._watch = watch
        self._tiers = tiers
        self._book = book
        self._writer = writer
        self._now = now
        self._block_size = block_size
        self._fetches: dict[LiveRequest, Fetch] = {}
        self._ended_at: dict[int, float] = {}  # when the last turn of a session ended [s]
        self._pause_s = spec.think_s

    def arrived(self, live: LiveRequest, runs: BlockRuns, start: int, limit: int) -> None:
        """Hears of a request in the queue, of whose chain HBM has the first `start` blocks."""
        if self._spec.on == "arrival":
            fetch = self._begin(live, runs, start, limit)
            if fetch is not None:
                self._fetches[live] = fetch
        elif (ended_at := self._ended_at.pop(live.request.session_id, None)) is not None:
            self._pause_s += PAUSE_WEIGHT * (self._now() - ended_at - self._pause_s)

    def ended(self, live: LiveRequest, runs: BlockRuns) -> None:
        """Hears of an answer that is complete: another turn may follow."""
        session = live.request.session_id
        if self._spec.on != "next_turn" or session < 0:
            return
        now = self._now()
        self._ended_at[session] = now
        num_blocks = live.num_computed // self._block_size

        def fetch() -> Sequence[LiveRequest]:
            if session in self._ended_at:  # it has not come yet
                self._begin(None, runs, 0, num_blocks)
            return ()

        self._book.wake_at(max(now, now + self._pause_s - self._spec.lead_s), TierJob(fetch))

    def must_wait(self, live: LiveRequest) -> bool:
        """Returns whether a request whose turn has come waits for its prefetch; else the rest is dropped."""
        fetch = self._fetches.get(live)
        if fetch is None:
            return False
        stop = self._spec.stop
        if stop == "wait_complete" or (stop == "timeout" and self._now() < fetch.gives_up_at):
            return True
        self._stop(fetch)
        return False

    def set_aside(self, live: LiveRequest) -> None:
        """Lets a request wait until its prefetch is over, or for as long as it may."""
        fetch = self._fetches[live]
        if not fetch.is_waited_for:
            fetch.is_waited_for = True
            if self._spec.stop == "timeout":
                self._book.wake_at(fetch.gives_up_at, TierJob(lambda: self._give_up(fetch)))

    def _begin(self, live: LiveRequest | None, runs: BlockRuns, start: int, limit: int) -> Fetch | None:
        """Starts to fetch what lower tiers have beyond HBM and the first tier; None if it is too little."""
        found = find_parts(self._tiers, runs, start, limit)
        intact, failure = self._watch.cut(live, runs, found, (start, limit), len(self._tiers))
        parts = [part for part in intact if part.tier]
        num_tokens = sum(part.num_blocks for part in parts) * self._block_size
        if num_tokens < self._spec.threshold_tokens:
            return None
        if failure is not None:
            self._book.failed(self._tiers[failure.tier].name, failure, self._block_size)
            self._watch.spoil(failure, runs)
        fetch = Fetch(live, runs, parts, self._now() + timeout_s(self._spec, num_tokens))
        for part in parts:
            self._tiers[part.tier].store.pin(runs, part.span)
        self._next_piece(fetch)
        return fetch

    def _next_piece(self, fetch: Fetch) -> None:
        """Moves the next piece up; the others follow one after another."""
        part = fetch.parts[0]
        first, end = part.span
        split = min(end, first + self._spec.piece_blocks)
        store, tier, target = self._tiers[part.tier].store, self._tiers[part.tier], self._tiers[0]
        spans, evicted = target.store.insert(fetch.runs, (first, split), target.store.use(self._now()))
        target.note_change(self._now(), evicted)
        self._writer.send_down(0, evicted)
        num_blocks = sum(end - first for first, end in spans)
        self._book.traffic[target.name].prefetched_tokens += num_blocks * self._block_size
        if split < end:
            fetch.parts[0] = Part(part.tier, (split, end))
        else:
            fetch.parts.pop(0)

        def arrived() -> Sequence[LiveRequest]:
            self._writer.arrived(0, fetch.runs, spans)
            store.unpin(fetch.runs, (first, split))
            if fetch.parts:
                self._next_piece(fetch)
                return ()
            return self._finish(fetch)

        self._book.move(tier.name, target.name, num_blocks, When.BESIDE, TierJob(arrived))

    def _stop(self, fetch: Fetch) -> None:
        """Drops what has not been started yet."""
        for part in fetch.parts:
            self._tiers[part.tier].store.unpin(fetch.runs, part.span)
        fetch.parts.clear()
        if fetch.live is not None:
            self._fetches.pop(fetch.live, None)
        fetch.is_over = True

    def _finish(self, fetch: Fetch) -> Sequence[LiveRequest]:
        if fetch.is_over:
            return ()
        fetch.is_over = True
        if fetch.live is None:
            return ()
        self._fetches.pop(fetch.live, None)
        return (fetch.live,) if fetch.is_waited_for else ()

    def _give_up(self, fetch: Fetch) -> Sequence[LiveRequest]:
        if fetch.is_over:
            return ()
        self._stop(fetch)
        return () if fetch.live is None else (fetch.live,)
