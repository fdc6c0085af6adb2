"""A request on its way through one engine: the state that schedulers and the KV cache keep of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..request import Request

if TYPE_CHECKING:
    from .kv.prefix import PrefixNode


class SampleGroup:
    """The samples of one request that still run, and what those that ended add up to."""

    __slots__ = ("num_left", "num_output_tokens", "num_preemptions", "num_recomputed_tokens")

    def __init__(self, num_samples: int) -> None:
        self.num_left = num_samples
        self.num_output_tokens = 0
        self.num_preemptions = 0
        self.num_recomputed_tokens = 0

    def ended(self, live: LiveRequest) -> bool:
        """Hears that a sample has ended; returns whether it was the last, which then has all their sums."""
        self.num_left -= 1
        self.num_output_tokens += live.num_output_tokens
        self.num_preemptions += live.num_preemptions
        self.num_recomputed_tokens += live.num_recomputed_tokens
        if self.num_left:
            return False
        live.num_output_tokens = self.num_output_tokens
        live.num_preemptions = self.num_preemptions
        live.num_recomputed_tokens = self.num_recomputed_tokens
        return True


class LiveRequest:
    """A request on its way through one engine; schedulers and the KV cache keep their state here.

    num_output_tokens: tokens it will produce here (the model's context limit may cut the demand).
    num_sampled: tokens sampled by the steps scheduled so far, exact while the request is not decoding
    (a decoding one is described by `DecodeSet`). num_computed: tokens whose KV is in the cache, likewise.
    """

    # What starts out the same for all is kept by the class until it changes: most requests are never
    # preempted and hit no cache, and a live request is made for each one that arrives.
    num_computed = 0
    num_sampled = 0
    # Cached tokens hit at the first admission; tokens lost to preemption and computed once more.
    num_cached_tokens = 0
    num_preemptions = 0
    num_lost_tokens = 0
    num_recomputed_tokens = 0
    last_token_at = 0.0
    # Decoding: at step s the context is `context_base + s`; the last token comes in `final_step`.
    is_decoding = False
    context_base = 0
    final_step = 0
    # One of several samples of its request: which, and what they share.
    sample = 0
    group: SampleGroup | None = None
    # Where samples are a group: those that begin when the prompt of this one is computed, full blocks shared.
    siblings: Sequence[LiveRequest] = ()
    num_shared_blocks = 0
    # Prefix cache: deepest node held, blocks covered by held nodes.
    cached_node: PrefixNode | None = None
    num_cached_blocks = 0
    runs: tuple[tuple[object, int], ...] | None = None

    def __init__(self, request: Request, num_output_tokens: int) -> None:
        self.request = request
        self.index = request.index
        self.prompt_tokens = request.prompt_tokens
        self.num_output_tokens = num_output_tokens

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill when it is (re)admitted: the prompt and what was already sampled."""
        return self.prompt_tokens + self.num_sampled

    def note_hit(self, num_cached_tokens: int) -> None:
        """Notes what was found cached on admission; the rest of what was lost is computed once more."""
        if self.num_preemptions:
            self.num_recomputed_tokens += max(self.num_lost_tokens - num_cached_tokens, 0)
            self.num_lost_tokens = 0
        else:
            self.num_cached_tokens = num_cached_tokens
