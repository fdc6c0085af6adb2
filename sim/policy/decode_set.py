"""The decodes of one replica, kept so that a step costs O(what changed), not O(batch).

A decoding request produces one token in every step, so its context is ``context_base + step``: nothing of
it is touched until it leaves. The set keeps what a step needs as sums: how many decode, the sum of their
contexts, and how many begin a new block at each step modulo the block size.
"""

from __future__ import annotations

from heapq import heappop, heappush

from ...hwmodels.step import DecodeGroup
from ..request import Request
from .live_request import LiveRequest

NEVER = 1 << 60
_GONE = -2 * NEVER
NO_DECODES = DecodeGroup(1, 0, 0, 0)

_new = tuple.__new__  # named tuples without the Python call of their own constructors


class DecodeSet:
    """Requests that get one token each in every step, described for the step after `step`.

    count: requests. sum_bases: sum of `context_base`; in step s the contexts add up to
    ``sum_bases + count * s``. block_needs[r]: requests that begin a new block in steps congruent to r.
    next_final: the first step in which some decode gets its last token, `NEVER` without decodes.
    num_spare: slots beyond its tokens that a request has blocks for, so that it begins one earlier.
    """

    __slots__ = (
        "_by_context",
        "_finals",
        "_phase",
        "block_needs",
        "block_size",
        "count",
        "next_final",
        "sum_bases",
    )

    def __init__(self, block_size: int, num_spare: int = 0) -> None:
        self.block_size = block_size
        self._phase = 1 - num_spare
        self.count = 0
        self.sum_bases = 0
        self.block_needs = [0] * block_size
        self.next_final = NEVER
        # Heaps of (final step, ...) and (-context_base, ...): the first entry is always a decode's, those
        # behind it may be of requests that have left. One that never leaves lies at the bottom.
        bottom = LiveRequest(Request(-1, 0.0, 1, 1), 1)
        bottom.final_step, bottom.context_base = NEVER, -NEVER
        self._finals = [(NEVER, -1, 0, bottom)]
        self._by_context = [(NEVER, -1, 0, bottom)]

    def join(self, live: LiveRequest, step: int) -> None:
        """Adds a request whose first decode step is `step`; it has `num_computed` tokens in the cache."""
        index, sample = live.index, live.sample
        live.context_base = base = live.num_computed + 1 - step
        live.final_step = final = step + live.num_output_tokens - live.num_sampled - 1
        live.is_decoding = True
        self.count += 1
        self.sum_bases += base
        self.block_needs[(self._phase - base) % self.block_size] += 1
        heappush(self._finals, (final, index, sample, live))
        heappush(self._by_context, (-base, index, sample, live))
        if final < self.next_final:
            self.next_final = final

    def leave(self, live: LiveRequest, step: int) -> None:
        """Removes a request that takes no part in `step` or later, and settles its counts."""
        base = live.context_base
        self.count -= 1
        self.sum_bases -= base
        self.block_needs[(self._phase - base) % self.block_size] -= 1
        live.num_computed = computed = base + step - 1
        live.num_sampled = computed + 1 - live.prompt_tokens
        live.is_decoding = False
        live.context_base = live.final_step = _GONE
        # Decodes must come to the front of both heaps again.
        finals, by_context = self._finals, self._by_context
        final, _, _, first = finals[0]
        while first.final_step != final:
            heappop(finals)
            final, _, _, first = finals[0]
        self.next_final = final
        negative_base, _, _, longest = by_context[0]
        while longest.context_base != -negative_base:
            heappop(by_context)
            negative_base, _, _, longest = by_context[0]

    def pop_final(self, step: int) -> list[LiveRequest]:
        """Removes and returns the decodes whose last token comes in `step`, the next final one."""
        done: list[LiveRequest] = []
        while self.next_final == step:
            live = self._finals[0][3]
            self.leave(live, step + 1)
            done.append(live)
        return done

    def group(self, step: int) -> DecodeGroup:
        """Returns the counts that price `step`."""
        count = self.count
        if not count:
            return NO_DECODES
        return _new(DecodeGroup, (1, count, self.sum_bases + count * step, step - self._by_context[0][0]))

    def ahead(self, step: int, num_blocks: int) -> tuple[int, DecodeGroup, bool] | None:
        """Returns how many steps go on after `step`, their decodes in the first, and why they are not more.

        They go on until the next last token (True), or as long as `num_blocks` free blocks suffice (False).
        None if there is no such step.
        """
        count = self.count
        if not count:
            return None
        first = step + 1
        until_final = num_steps = self.next_final - step
        if count * (until_final // self.block_size + 1) > num_blocks:
            num_steps = self.steps_within(first, num_blocks, until_final)
            if not num_steps:
                return None
        counts = (1, count, self.sum_bases + count * first, first - self._by_context[0][0])
        return num_steps, _new(DecodeGroup, counts), num_steps == until_final

    @property
    def num_growing(self) -> int:
        """Decodes that begin a new block every `block_size` steps."""
        return self.count

    def begins_block(self, live: LiveRequest, step: int) -> bool:
        """Returns whether one of the decodes begins a new block in `step`."""
        return (live.context_base + step - self._phase) % self.block_size == 0

    def blocks_for(self, step: int) -> int:
        """Returns the new blocks that `step` takes."""
        return self.block_needs[step % self.block_size]

    def growth(self, step: int) -> tuple[int, ...]:
        """Returns the new blocks of `step` and those after it, up to where they begin again."""
        first = step % self.block_size
        return (*self.block_needs[first:], *self.block_needs[:first])

    def blocks_for_steps(self, first_step: int, num_steps: int) -> int:
        """Returns the new blocks that `num_steps` steps take, if nobody joins or leaves."""
        size, needs = self.block_size, self.block_needs
        begin = first_step % size
        end = begin + num_steps
        if end <= size:
            return sum(needs[begin:end])
        # Whole rounds from residue 0 on, less what lies before the first step, and a part of one more round.
        rounds, end = divmod(end, size)
        return rounds * self.num_growing - sum(needs[:begin]) + sum(needs[:end])

    def steps_within(self, first_step: int, num_blocks: int, max_steps: int) -> int:
        """Returns how many steps, `max_steps` at most, `num_blocks` free blocks suffice for."""
        size, growing = self.block_size, self.num_growing
        if growing * (max_steps // size + 1) <= num_blocks:
            return max_steps
        cycles, left = divmod(num_blocks, growing)
        steps = cycles * size
        while steps < max_steps:
            left -= self.block_needs[(first_step + steps) % size]
            if left < 0:
                break
            steps += 1
        return min(steps, max_steps)
