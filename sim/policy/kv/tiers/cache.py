"""A KV cache over HBM and the tiers under it, behind the contract that every scheduler knows.

HBM is any prefix cache (`inner`). What it lacks of a prompt may be loaded: along with the step that the
request joins, before it, or while the request waits and others go on. What it computes goes down by the
tiers' write policies. Moves are decided here and timed by the engine's mover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from ...live_request import LiveRequest
from ...moves import When
from ..blocks import KvCache, PrefixHit, num_blocks_for
from ..runs import BlockRuns, runs_of
from .failures import Failure, StoreWatch
from .job import MoveBook, TierJob
from .load_plan import LoadCost, LoadPlan, Part, cheaper_parts, find_parts, note_look_up
from .prefetch import Prefetcher
from .rules import TierRules
from .store import Span
from .tier import Tier
from .writer import TierWriter


class TieredKvCache:
    """Blocks of one replica in HBM, over tiers that it may share.

    block_bytes: a block over all GPUs [B]. now() is the instant that it is [s]. can_set_aside: the scheduler
    lets requests wait for their load while others go on. loaded: requests whose load has ended and who are
    not admitted yet, with the blocks that they hold.
    """

    def __init__(
        self,
        inner: KvCache,
        tiers: Sequence[Tier],
        rules: TierRules,
        *,
        block_bytes: int,
        cost: LoadCost,
        now: Callable[[], float],
        can_set_aside: bool,
        seed: int = 0,
    ) -> None:
        self.block_size = inner.block_size
        self.num_blocks = inner.num_blocks
        self.stats = inner.stats
        self.block_bytes = block_bytes
        self.tiers = tiers
        self._inner = inner
        self._rules = rules
        self._cost = cost
        self._now = now
        self._can_set_aside = can_set_aside
        self._book = MoveBook([tier.name for tier in tiers], block_bytes)
        self.moves = self._book.moves
        self.traffic = self._book.traffic
        self._writer = TierWriter(tiers, self._book, now)
        self._watch = StoreWatch(tiers, now, seed)
        self._prefetcher: Prefetcher | None = None
        if rules.prefetch is not None:
            self._prefetcher = Prefetcher(
                rules.prefetch,
                tiers,
                self._book,
                self._writer,
                now,
                watch=self._watch,
                block_size=self.block_size,
            )
        # Blocks held by requests that are set aside: on their way in, and there but not admitted yet.
        self._loading: dict[LiveRequest, LoadPlan] = {}
        self.loaded: dict[LiveRequest, int] = {}
        self._keys_loading: dict[object, list[LiveRequest]] = {}  # and who waits for the same

    @property
    def num_free(self) -> int:
        """Blocks of HBM that nobody holds."""
        return self._inner.num_free

    def arrived(self, live: LiveRequest) -> None:
        """Hears of a request that joins the queue."""
        live.runs = self._watch.at_version(self._runs(live))
        if self._prefetcher is not None and live.request.content is not None:
            start = self._inner.lookup(live).num_blocks
            self._prefetcher.arrived(live, self._runs(live), start, self._limit(live))

    def lookup(self, live: LiveRequest) -> PrefixHit:
        """Returns what HBM and the tiers have of a request's prefix; what must be loaded is in its `load`."""
        num_loaded = self.loaded.get(live)
        if num_loaded is not None:
            return PrefixHit(num_loaded)
        live.runs = self._watch.at_version(self._runs(live))
        hit = self._inner.lookup(live)
        if live.request.content is None and not live.num_preemptions:
            return hit
        runs, limit = self._runs(live), self._limit(live)
        for tier in self.tiers:
            tier.store.expire(self._now())
        if self._can_set_aside and self._prefetcher is not None and self._prefetcher.must_wait(live):
            return replace(hit, load=LoadPlan(hit, runs, (), None))
        direct = self.tiers[: self._rules.num_direct]
        parts = self._worth_loading(find_parts(direct, runs, hit.num_blocks, limit))
        parts, failure = self._watch.cut(live, runs, parts, (hit.num_blocks, limit), len(direct))
        if not parts and failure is None:
            return hit
        plan = LoadPlan(hit, runs, parts, self._rules.load, failure)
        if self._rules.load == "async" and self._waits_for(plan) is not None:
            plan = replace(plan, load=None)
        num_blocks = plan.end - hit.num_blocks
        return PrefixHit(hit.num_blocks + num_blocks, hit.num_free_blocks + num_blocks, hit.path, load=plan)

    def set_aside(self, live: LiveRequest, plan: LoadPlan) -> None:
        """Lets a request wait: for its own load, whose blocks it takes now, or for what others fetch."""
        if plan.load is None:
            waiting = self._waits_for(plan)
            if waiting is not None:
                waiting.append(live)
            elif self._prefetcher is not None:
                self._prefetcher.set_aside(live)
            return
        start, end = plan.hbm_hit.num_blocks, plan.end
        self._inner.admit(live, plan.hbm_hit, start * self.block_size)
        self._inner.take(end - start)
        live.num_computed = end * self.block_size
        self._loading[live] = plan
        for key in _keys(plan):
            self._keys_loading.setdefault(key, [])
        self._load(live, plan, When.BESIDE, lambda: self._has_loaded(live))

    def give_up(self, live: LiveRequest) -> bool:
        """Takes the blocks of a loaded request that is not admitted yet; False if it has none."""
        if self.loaded.pop(live, None) is None:
            return False
        self._inner.release(live, is_finished=False)
        live.num_computed = 0
        return True

    def admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Gives the request the blocks of its first `num_tokens` tokens, loading what `hit` says."""
        plan, num_loaded = hit.load, self.loaded.pop(live, None)
        if num_loaded is not None:
            self._inner.take(num_blocks_for(num_tokens, self.block_size) - num_loaded)
            self._inner.computed(live, num_tokens)
        elif plan is None:
            self._inner.admit(live, hit, num_tokens)
            plan = LoadPlan(hit, self._runs(live), (), None)
        else:
            self._inner.admit(live, plan.hbm_hit, num_tokens)
            self._load(live, plan, When.ALONG if plan.load == "along" else When.BEFORE, lambda: ())
        if plan is not None:
            self._note_use(live, plan)
        self._write(live, num_tokens)

    def take(self, num_blocks: int) -> None:
        """Takes free blocks of HBM."""
        self._inner.take(num_blocks)

    def computed(self, live: LiveRequest, num_tokens: int) -> None:
        """Notes that the request's first `num_tokens` tokens are in HBM."""
        self._inner.computed(live, num_tokens)
        self._write(live, num_tokens)

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees the request's blocks in HBM."""
        # SIMPLIFIED: an answer's blocks go down when it ends, not as they fill, and their blocks in HBM are
        # free at once; effect: the same bytes, later, and a few milliseconds' blocks too many.
        self._write(live, live.num_computed, when=When.BESIDE)
        if is_finished and self._prefetcher is not None:
            self._prefetcher.ended(live, self._runs(live))
        self._inner.release(live, is_finished=is_finished)

    def evicted(self, runs: BlockRuns, span: tuple[int, int]) -> None:
        """Hears that HBM is about to lose blocks: a tier that is written back gets them before the step."""
        self._writer.write(0, "hbm", runs, span, When.BEFORE)

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError if blocks of HBM, or a tier's content, don't add up."""
        aside = ((live, live.num_computed) for live in (*self._loading, *self.loaded))
        self._inner.check(chain(holders, aside))
        for tier in self.tiers:
            tier.store.check()

    def _runs(self, live: LiveRequest) -> BlockRuns:
        return runs_of(live, self.block_size)

    def _limit(self, live: LiveRequest) -> int:
        # SIMPLIFIED: at least one token is computed, so of a prompt of whole blocks the last one is never
        # loaded; effect: vLLM loads it and computes a single token.
        return (live.num_tokens - 1) // self.block_size

    def _worth_loading(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Returns the parts to load, by the rules; what is left of them is computed."""
        book, rules = self._book, self._rules
        if parts and rules.cheaper_only:
            parts = cheaper_parts(
                parts, self.tiers, self._cost, block_size=self.block_size, block_bytes=book.block_bytes
            )
        num_tokens = sum(part.num_blocks for part in parts) * self.block_size
        return parts if num_tokens >= rules.min_load_tokens else ()

    def _waits_for(self, plan: LoadPlan) -> list[LiveRequest] | None:
        """Returns who waits for a load under way of what the plan needs, None if there is no such load.

        Source: vLLM offloading/scheduler.py, _blocks_being_loaded.
        """
        return next((self._keys_loading[key] for key in _keys(plan) if key in self._keys_loading), None)

    def _load(
        self, live: LiveRequest, plan: LoadPlan, when: When, on_end: Callable[[], Sequence[LiveRequest]]
    ) -> None:
        """Moves the parts of a plan into HBM; what passes the tiers above stays there if it is promoted."""
        num_left = len(plan.parts)

        def one_ended() -> Sequence[LiveRequest]:
            nonlocal num_left
            num_left -= 1
            return () if num_left else on_end()

        def ended(part: Part, promoted: Sequence[Sequence[Span]]) -> Sequence[LiveRequest]:
            self.tiers[part.tier].store.unpin(plan.runs, part.span)
            for number, spans in enumerate(promoted):
                self._writer.arrived(number, plan.runs, spans)
            return one_ended()

        for part in plan.parts:
            tier = self.tiers[part.tier]
            tier.store.pin(plan.runs, part.span)
            num_tokens, traffic = part.num_blocks * self.block_size, self.traffic[tier.name]
            traffic.loaded_tokens += num_tokens
            traffic.hit_tokens += 0 if live.num_preemptions else num_tokens
            above = range(part.tier) if self._rules.promotes else ()
            promoted = [self._writer.promote(number, plan.runs, part.span) for number in above]
            self._book.move(tier.name, "hbm", part.num_blocks, when, TierJob(partial(ended, part, promoted)))
        if plan.failure is not None:
            num_left += 1
            self._fail(plan.failure, plan.runs, when, TierJob(one_ended))

    def _fail(self, failure: Failure, runs: BlockRuns, when: When, job: TierJob) -> None:
        """Loads in vain what fails, or waits until that is known."""
        name = self.tiers[failure.tier].name
        self._book.failed(name, failure, self.block_size)
        self._watch.spoil(failure, runs)
        if failure.num_wasted:
            self._book.move(name, "hbm", failure.num_wasted, when, job)
        else:
            self._book.wake_at(self._now() + failure.wait_s, job, when)

    def _has_loaded(self, live: LiveRequest) -> Sequence[LiveRequest]:
        plan = self._loading.pop(live)
        self.loaded[live] = live.num_computed // self.block_size
        self._inner.computed(live, live.num_computed)
        self._note_use(live, plan)
        waiting = [live]
        for key in _keys(plan):
            waiting += self._keys_loading.pop(key, ())
        return waiting

    def _note_use(self, live: LiveRequest, plan: LoadPlan) -> None:
        """Tells the tiers of a request that is admitted or loaded: what it uses is in use everywhere."""
        now, limit = self._now(), live.prompt_tokens // self.block_size
        self._writer.note_use(plan.runs, limit)
        note_look_up(self.tiers, plan, limit)
        for tier in self.tiers:
            tier.store.touch(plan.runs, limit, tier.store.use(now, _turn_of(live)))
        missing = self._watch.missing(plan.runs, plan.end, limit) if plan.failure is None else None
        if missing is not None:
            self._book.failed(self.tiers[missing.tier].name, missing, self.block_size)
        if self._rules.cheaper_only and plan.failure is None:
            for part in find_parts(self.tiers[: self._rules.num_direct], plan.runs, plan.end, limit):
                name = self.tiers[part.tier].name
                self.traffic[name].recomputed_tokens += part.num_blocks * self.block_size

    def _write(self, live: LiveRequest, num_tokens: int, when: When = When.AFTER) -> None:
        span = (0, num_tokens // self.block_size)
        if span[1]:
            self._writer.offer(0, "hbm", self._runs(live), span, when, _turn_of(live))


def _turn_of(live: LiveRequest) -> int:
    """Returns the turns before a request in its conversation, 0 without one."""
    return live.request.turn if live.request.session_id >= 0 else 0


def _keys(plan: LoadPlan) -> list[object]:
    """Returns the keys of the runs that a plan loads."""
    found: list[object] = []
    first, end = (plan.parts[0].span[0], plan.parts[-1].span[1]) if plan.parts else (0, 0)
    position = 0
    for key, num_blocks in plan.runs:
        position += num_blocks
        if position > first:
            found.append(key)
        if position >= end:
            break
    return found if end else []
