"""The requests that KsanaLLM has swapped out: who is on the host, who on the way there, who on the way back.

Copies go beside the steps. When one has ended, the next call of the scheduler merges it: only then do blocks
that have gone out come free, and requests that are back decode.

Source: KsanaLLM src/ksana_llm/cache_manager/base_cache_manager.h and direct_cache_manager.cpp, commit
c451219c (behaviour, read 2026-11).
"""

from __future__ import annotations

from ..kv.blocks import KvCache
from ..kv.ksana import KsanaKvCache
from ..live_request import LiveRequest
from ..moves import Move, When
from .swap import BlockCopies


class KsanaSwapper:
    """Swaps one request after the other out, and any number back.

    swapped: those on the host, by number and sample. going_out: the one whose blocks leave. coming_in: those
    whose blocks come back. num_host_blocks: what the host has room for.
    """

    # SIMPLIFIED: with another cache than KsanaLLM's own nothing is swapped, all is recomputed; effect: none
    # by default.

    def __init__(self, kv: KvCache, *, host_memory_factor: float, copies: BlockCopies) -> None:
        self._kv = kv if isinstance(kv, KsanaKvCache) else None
        self._copies = copies
        self.num_host_blocks = int(host_memory_factor * kv.num_blocks)
        self.swapped: dict[tuple[int, int], LiveRequest] = {}
        self.going_out: LiveRequest | None = None
        self.coming_in: dict[LiveRequest, bool] = {}  # whether the copy has ended
        self._has_gone_out = False

    @property
    def num_requests(self) -> int:
        """Requests that are not on the GPU, or not all."""
        return len(self.swapped) + len(self.coming_in) + (self.going_out is not None)

    @property
    def is_moving(self) -> bool:
        """Whether blocks are on their way."""
        return self.going_out is not None or bool(self.coming_in)

    def has_room_for(self, num_blocks: int) -> bool:
        """Returns whether so many more blocks fit into host memory."""
        kv = self._kv
        return kv is not None and kv.swap.num_host_blocks + num_blocks <= self.num_host_blocks

    def send(self, live: LiveRequest) -> Move:
        """Begins to move a request out that runs no more."""
        assert self._kv is not None, "asked has_room_for"
        num_blocks, _ = self._kv.swap_out(live)
        self.going_out, self._has_gone_out = live, False
        return self._move("hbm", "dram", num_blocks, live)

    def num_needed(self, live: LiveRequest) -> int:
        """Returns the blocks that a request must get back, one more if its next token fills the last."""
        assert self._kv is not None, "has swapped it out"
        is_last_full = (live.num_computed + 1) % self._kv.block_size == 0
        return self._kv.swap.num_host_blocks_of(live) + is_last_full

    def fetch(self, live: LiveRequest) -> Move:
        """Begins to move a request back; the blocks must be free."""
        assert self._kv is not None, "has swapped it out"
        del self.swapped[live.index, live.sample]
        self.coming_in[live] = False
        return self._move("dram", "hbm", self._kv.swap_in(live), live)

    def moved(self, live: LiveRequest) -> None:
        """Hears that a copy has ended."""
        if live is self.going_out:
            self._has_gone_out = True
        else:
            self.coming_in[live] = True

    def merge_out(self) -> None:
        """Frees the blocks that have gone out."""
        live = self.going_out
        if live is not None and self._has_gone_out:
            assert self._kv is not None, "has swapped it out"
            self._kv.swapped_out(live)
            self.swapped[live.index, live.sample] = live
            self.going_out = None

    def merge_in(self) -> list[LiveRequest]:
        """Returns the requests that are back, from now on the scheduler's again."""
        back = [live for live, has_arrived in self.coming_in.items() if has_arrived]
        for live in back:
            assert self._kv is not None, "has swapped it out"
            del self.coming_in[live]
            self._kv.swapped_in(live)
        return back

    def drop(self, live: LiveRequest) -> None:
        """Forgets a request that never comes back, if it is on the host."""
        if self.swapped.pop((live.index, live.sample), None) is not None:
            assert self._kv is not None, "has swapped it out"
            self._kv.drop_swapped(live)

    def _move(self, source: str, target: str, num_blocks: int, live: LiveRequest) -> Move:
        # One copy per block and GPU, with all layers in it.
        copies = self._copies
        num_bytes, num_pieces = num_blocks * copies.num_bytes, num_blocks * copies.num_gpus
        return Move(source, target, num_bytes, num_pieces, When.BESIDE, live)
