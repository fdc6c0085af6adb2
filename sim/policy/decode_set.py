"""The decodes of one replica, kept so that a step costs O(what changed), not O(batch).

A decoding request produces one token in every step, so its context is ``context_base + step``: nothing of
it is touched until it leaves. The set keeps what a step needs as sums: how many decode, the sum of their
contexts, and how many begin a new block at each step modulo the block size.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from ...hwmodels.step import DecodeGroup
from .live_request import LiveRequest

NEVER = 1 << 60


class DecodeSet:
    """Requests that get one token each in every step, described for the step after `step`.

    count: requests. sum_bases: sum of `context_base`; in step s the contexts add up to
    ``sum_bases + count * s``. block_needs[r]: requests that begin a new block in steps congruent to r.
    """

    __slots__ = ("_finals", "_smallest_joined", "block_needs", "block_size", "count", "sum_bases")

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.count = 0
        self.sum_bases = 0
        self.block_needs = [0] * block_size
        self._finals: list[tuple[int, int, LiveRequest]] = []
        self._smallest_joined: list[tuple[int, int, LiveRequest]] = []

    def join(self, live: LiveRequest, step: int) -> None:
        """Adds a request whose first decode step is `step`; it has `num_computed` tokens in the cache."""
        base = live.num_computed + 1 - step
        live.context_base = base
        live.final_step = final = step + live.num_output_tokens - live.num_sampled - 1
        live.is_decoding = True
        self.count += 1
        self.sum_bases += base
        self.block_needs[(1 - base) % self.block_size] += 1
        heappush(self._finals, (final, live.index, live))
        heappush(self._smallest_joined, (-base, live.index, live))

    def leave(self, live: LiveRequest, step: int) -> None:
        """Removes a request that takes no part in `step` or later, and settles its counts."""
        base = live.context_base
        self.count -= 1
        self.sum_bases -= base
        self.block_needs[(1 - base) % self.block_size] -= 1
        live.num_computed = base + step - 1
        live.num_sampled = live.num_computed + 1 - live.prompt_tokens
        live.is_decoding = False
        live.final_step = NEVER

    def next_final_step(self) -> int:
        """Returns the first step in which some decode gets its last token, `NEVER` without decodes."""
        finals = self._finals
        while finals:
            final, _, live = finals[0]
            if live.is_decoding and live.final_step == final:
                return final
            heappop(finals)
        return NEVER

    def pop_final(self, step: int) -> Sequence[LiveRequest]:
        """Removes and returns the decodes whose last token comes in `step`."""
        finals = self._finals
        if not finals or finals[0][0] > step:
            return ()
        done: list[LiveRequest] = []
        while self.next_final_step() == step:
            live = heappop(finals)[2]
            self.leave(live, step + 1)
            done.append(live)
        return done

    def max_context(self, step: int) -> int:
        """Returns the longest context in `step` [tokens], 0 without decodes."""
        heap = self._smallest_joined
        while heap:
            negative_base, _, live = heap[0]
            if live.is_decoding and live.context_base == -negative_base:
                return step - negative_base
            heappop(heap)
        return 0

    def group(self, step: int) -> DecodeGroup:
        """Returns the counts that price `step`."""
        return DecodeGroup(1, self.count, self.sum_bases + self.count * step, self.max_context(step))

    def blocks_for(self, step: int) -> int:
        """Returns the new blocks that `step` takes."""
        return self.block_needs[step % self.block_size]

    def blocks_for_steps(self, first_step: int, num_steps: int) -> int:
        """Returns the new blocks that `num_steps` steps take, if nobody joins or leaves."""
        size, needs = self.block_size, self.block_needs
        cycles, rest = divmod(num_steps, size)
        begin = first_step % size
        end = begin + rest
        taken = sum(needs[begin:end]) if end <= size else sum(needs[begin:]) + sum(needs[: end - size])
        return cycles * self.count + taken

    def steps_within(self, first_step: int, num_blocks: int, max_steps: int) -> int:
        """Returns how many steps, `max_steps` at most, `num_blocks` free blocks suffice for."""
        size = self.block_size
        if self.count * (max_steps // size + 1) <= num_blocks:
            return max_steps
        cycles, left = divmod(num_blocks, self.count)
        steps = cycles * size
        while steps < max_steps:
            left -= self.block_needs[(first_step + steps) % size]
            if left < 0:
                break
            steps += 1
        return min(steps, max_steps)
