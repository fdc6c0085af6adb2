"""The KV cache of engines before paging: one contiguous region per request, reserved when it is admitted.

Here a block is one token's slot. Growing never fails, because a request grows into what it has reserved;
so `num_free` counts slots without a token, and whether a new request finds room is `lookup`'s to say: its
hit costs more than any cache has where no hole is large enough. A scheduler that admits by
``needed + hit.num_free_blocks <= num_free``, as paged ones do, thereby admits by reservation.

Source: Orca (OSDI 2022) section 4.2, which reserves max_tokens slots; its variants Max, Pow2 and Oracle are
those of PagedAttention (arXiv 2309.06180) section 6.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ....errors import InfeasibleError, InvariantError
from ..live_request import LiveRequest
from ..moves import Move, When
from .allocators import AllocatorName, HoleAllocator, Region, largest_buddy, make_allocator, power_of_two_from
from .blocks import NO_HIT, PrefixHit, PrefixStats

Reserve = Literal["max", "pow2", "oracle"]
Ints = NDArray[np.integer]

NO_ROOM = PrefixHit(num_free_blocks=1 << 60)
"""A hit that no cache can pay: there is no region for the request now."""


class ContiguousKvCache:
    """Slots of one replica, `num_blocks` of them; a region per running request.

    moves: copies that compaction asked for, for the engine to time; the step that admits waits for them.
    """

    block_size = 1

    def __init__(
        self,
        *,
        num_slots: int,
        allocator: AllocatorName,
        reserve: Reserve,
        compaction: bool,
        max_model_len: int,
        slot_bytes: float,
    ) -> None:
        """slot_bytes: keys and values of one token on all GPUs of the replica [B]."""
        self.num_blocks = num_slots
        self.stats = PrefixStats()
        self.moves: list[Move] = []
        self._allocator = make_allocator(allocator, num_slots)
        self._reserve = reserve
        self._compacts = compaction
        self._max_model_len = max_model_len
        self._slot_bytes = slot_bytes
        self._regions: dict[LiveRequest, Region] = {}
        self._num_filled = 0

    @property
    def num_free(self) -> int:
        """Slots without a token, reserved or not: all that the running requests can still fill."""
        return self.num_blocks - self._num_filled

    @property
    def num_reserved(self) -> int:
        """Slots that belong to a request, filled or not."""
        return self.num_blocks - self._allocator.num_free

    def lookup(self, live: LiveRequest) -> PrefixHit:
        """Returns no hit: nothing is shared; `NO_ROOM` if there is no region for the request now."""
        size = self._size(live)
        if self._allocator.fits(size):
            return NO_HIT
        return NO_HIT if self._compacts and size <= self._allocator.num_free else NO_ROOM

    def admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Reserves the request's region, after compaction where no hole fits, and fills `num_tokens`."""
        size = self._size(live)
        if not self._allocator.fits(size):
            self._compact()
        self._regions[live] = self._allocator.allocate(size)
        self._num_filled += num_tokens

    def take(self, num_blocks: int) -> None:
        """Fills slots that running requests have reserved."""
        self._num_filled += num_blocks
        if self._num_filled > self.num_reserved:
            raise InvariantError(f"filled {self._num_filled} slots with {self.num_reserved} reserved")

    def computed(self, live: LiveRequest, num_tokens: int) -> None:
        """Does nothing: content is not tracked."""

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees the request's region."""
        self._allocator.free(self._regions.pop(live))
        self._num_filled -= live.num_computed

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError unless regions and holes tile the slots and hold what was filled."""
        filled = 0
        for live, num_computed in holders:
            filled += num_computed
            if num_computed > self._regions[live].size:
                raise InvariantError(f"{num_computed} tokens in {self._regions[live].size} slots")
        if filled != self._num_filled:
            raise InvariantError(f"holders filled {filled} slots, counted {self._num_filled}")
        end = 0
        for region in sorted((*self._regions.values(), *self._allocator.holes())):
            if region.start != end:
                raise InvariantError(f"a region starts at slot {region.start}, the one before ends at {end}")
            end = region.end
        if end != self.num_blocks:
            raise InvariantError(f"regions end at slot {end} of {self.num_blocks}")

    def _size(self, live: LiveRequest) -> int:
        return int(
            reserved_slots(self._reserve, live.prompt_tokens, live.num_output_tokens, self._max_model_len)
        )

    def _compact(self) -> None:
        """Slides all regions to the front; what is filled of those that moved is copied first.

        SIMPLIFIED: of each the share that is filled of all reserved slots; effect: right on average, off for
        a compaction that moves only young or only old requests.
        """
        if not isinstance(self._allocator, HoleAllocator):
            raise InvariantError("regions of the buddy system cannot slide")
        by_address = sorted(self._regions, key=self._regions.__getitem__)
        moved = self._allocator.compact([self._regions[live] for live in by_address])
        num_pieces = num_slots = 0
        for live, region in zip(by_address, moved, strict=True):
            if region != self._regions[live]:
                num_pieces, num_slots = num_pieces + 1, num_slots + region.size
            self._regions[live] = region
        filled = num_slots * self._num_filled / max(self.num_reserved, 1)
        num_bytes = round(filled * self._slot_bytes)
        self.moves.append(Move("hbm", "hbm", num_bytes, num_pieces, When.BEFORE))


def reserved_slots(
    reserve: Reserve, prompt_tokens: int | Ints, output_tokens: int | Ints, max_model_len: int
) -> int | Ints:
    """Returns the slots reserved for a request, or for each of many.

    max: the longest request there may be. pow2: the prompt and the power of two at or above the answer's
    length, no more than max. oracle: what it will fill, the answer's length known ahead.
    Source: PagedAttention (arXiv 2309.06180) section 6.1: 25 output tokens reserve 32 under Pow2.
    """
    if reserve == "max":
        return max_model_len + 0 * prompt_tokens
    if reserve == "oracle":
        return prompt_tokens + output_tokens
    if isinstance(output_tokens, int):
        return min(prompt_tokens + power_of_two_from(output_tokens), max_model_len)
    outputs = 1 << np.ceil(np.log2(output_tokens)).astype(np.int64)
    return np.minimum(prompt_tokens + outputs, max_model_len)


def check_contiguous(allocator: AllocatorName, *, num_slots: int, max_model_len: int) -> None:
    """Checks that the longest request finds a region in an empty cache, so that every request does.

    Raises: InfeasibleError with the sizes.
    """
    if allocator == "buddy":
        needed, largest = power_of_two_from(max_model_len), largest_buddy(num_slots)
    else:
        needed, largest = max_model_len, num_slots
    if needed > largest:
        raise InfeasibleError(
            f"a request of max_model_len {max_model_len} tokens reserves {needed} contiguous slots, the "
            f"largest region of {num_slots} slots is {largest}; lower scheduler.max_model_len"
        )
