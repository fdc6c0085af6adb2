"""What TGI's queue gives the router: requests from its head, while tokens and memory for all of each last.

In v3 an allocator has the blocks of whole requests; before, tokens are counted: those of the running batch
against a total.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..kv.blocks import KvCache, PrefixHit
from ..live_request import LiveRequest
from .completion import CompletionBook
from .tgi_spec import OLD_BATCH_TOTAL_TOKENS, TgiSpec


class TgiQueue:
    """The memory side of TGI's queue, over a KV cache.

    max_total_tokens: of all requests of a batch, prompts and answers.
    SIMPLIFIED: a total larger than the cache holds is cut to it, where 2023-06 would run out of memory;
    effect: none for totals that were chosen to fit.
    """

    def __init__(self, spec: TgiSpec, kv: KvCache) -> None:
        self._version = spec.version
        self._kv = kv
        self._book = CompletionBook(kv)
        self._charges: dict[LiveRequest, int] = {}
        self._num_charged = 0
        self._prefill_budget: int | None = None  # of the batch that is being put together
        self._num_prefill = self._num_total = self._num_left = 0
        held, total = kv.num_blocks * kv.block_size, spec.max_batch_total_tokens
        if spec.version == "2023-06":
            # Each step copies the cache into a longer one, which takes as much memory again.
            held, total = held // 2, total or OLD_BATCH_TOTAL_TOKENS
        self.max_total_tokens = held if total is None else min(held, total)
        self._num_withheld = kv.num_blocks - self.max_total_tokens // kv.block_size

    def padded(self, num_tokens: int) -> int:
        """Returns tokens in whole blocks; TGI counts prompts so from v2 on."""
        size = 1 if self._version == "2023-06" else self._kv.block_size
        return -(-num_tokens // size) * size

    def can_ever_hold(self, prompt_tokens: int, num_new_tokens: int) -> bool:
        """Returns whether such a request fits into an empty server."""
        if self._version == "v3":
            return self._book.whole(prompt_tokens + num_new_tokens - 1) <= self._num_blocks
        return self.padded(prompt_tokens) + self.padded(num_new_tokens) <= self.max_total_tokens

    def longest_answer(self, prompt_tokens: int) -> int:
        """Returns the most new tokens that an empty server could hold beside a prompt."""
        room = self.max_total_tokens - self.padded(prompt_tokens)
        return room - room % self.padded(1)

    def begin(self, prefill_budget: int | None) -> None:
        """Begins a batch of so many prompt tokens at most."""
        self._prefill_budget = prefill_budget
        self._num_left = self.max_total_tokens - self._num_charged
        self._num_prefill = self._num_total = 0

    def num_fitting(self, requests: Iterable[tuple[LiveRequest, int]]) -> int:
        """Returns how many of the requests, each with its longest answer, the batch could take."""
        num_requests = num_prefill = num_total = 0
        for live, limit in requests:
            num_prefill += self.padded(live.num_tokens)
            num_total += self.padded(live.num_tokens) + self.padded(limit)
            if self._is_over(num_prefill, num_total):
                break
            num_requests += 1
        return num_requests

    def grant(self, live: LiveRequest, limit: int) -> tuple[PrefixHit, int] | None:
        """Returns the next request's hit and the tokens of its prompt in this step, None if it must wait."""
        hit = self._kv.lookup(live)
        lacking = live.num_tokens - hit.num_blocks * self._kv.block_size
        if self._version == "v3":
            return self._allocated(live, limit, hit, lacking)
        self._num_prefill += self.padded(live.num_tokens)
        self._num_total += self.padded(live.num_tokens) + self.padded(limit)
        return None if self._is_over(self._num_prefill, self._num_total) else (hit, lacking)

    def admitted(self, live: LiveRequest, limit: int) -> None:
        """Sets aside what a granted request may still fill."""
        whole = self._book.whole(live.num_tokens + limit - 1)
        self._book.promise(live, whole)
        charge = live.num_tokens + limit if self._version == "2023-06" else whole * self._kv.block_size
        self._charges[live] = charge
        self._num_charged += charge

    def took(self, num_blocks: int) -> None:
        """Notes that running requests have taken blocks that were set aside for them."""
        self._book.took(num_blocks)

    def ended(self, live: LiveRequest) -> None:
        """Frees what was set aside for a request."""
        self._book.ended(live)
        self._num_charged -= self._charges.pop(live)

    @property
    def _num_blocks(self) -> int:
        return self._kv.num_blocks - self._num_withheld

    def _is_over(self, num_prefill: int, num_total: int) -> bool:
        budget = self._prefill_budget
        is_over_prefill = budget is not None and num_prefill > budget
        return is_over_prefill or num_total > self._num_left

    def _allocated(
        self, live: LiveRequest, limit: int, hit: PrefixHit, lacking: int
    ) -> tuple[PrefixHit, int] | None:
        """Grants a request of v3, its prompt split to what is left of the budget."""
        needed = self._book.whole(live.num_tokens + limit - 1) - hit.num_blocks + hit.num_free_blocks
        if needed > self._book.num_spare - self._num_withheld:
            return None
        if self._prefill_budget is not None:
            lacking = min(lacking, self._prefill_budget - self._num_prefill)
        self._num_prefill += lacking
        return (hit, lacking) if lacking > 0 else None
