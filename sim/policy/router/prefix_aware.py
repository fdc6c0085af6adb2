"""Prefix-aware routing: to the replica that has most of the prompt cached, as long as load stays even.

*Exact* asks the replicas' caches. *Approximate* remembers which prompts were sent where, as a front end does
that hears nothing of evictions: SGLang's router keeps such a tree per worker.

Source: SGLang sgl-model-gateway, policies/cache_aware.rs (behaviour: match above a threshold, else the
worker with the smallest tree; shortest queue while loads are uneven; read 2026-11).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from pydantic import Field

from ...request import ContentRun, Request
from ...spec import Spec
from .base import ClusterView, idlest


class PrefixAwareSpec(Spec):
    """The replica with the longest cached prefix while loads are even, else the idlest."""

    kind: Literal["prefix_aware"] = "prefix_aware"
    index: Literal["approximate", "exact"] = Field(
        "approximate", description="approximate: what was sent where; exact: what the replicas' caches hold."
    )
    cache_threshold: float = Field(
        0.3, ge=0, le=1, description="Share of a prompt that must be cached to send it there."
    )
    balance_abs_threshold: int = Field(
        64, ge=0, description="Loads are uneven if they differ by more requests than this ..."
    )
    balance_rel_threshold: float = Field(1.5, ge=1, description="... and by more than this ratio.")
    max_tree_tokens: int = Field(
        1 << 26, ge=1, description="approximate: tokens remembered per replica; the longest unused go first."
    )


class PrefixAwareRouter:
    """Longest cached prefix first, with an eye on balance."""

    def __init__(self, spec: PrefixAwareSpec) -> None:
        self._spec = spec
        self._sent: list[SentPrefixes] = []

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the replica, and remembers that the prompt goes there."""
        counts = view.num_outstanding
        while len(self._sent) < len(counts):
            self._sent.append(SentPrefixes(self._spec.max_tree_tokens))
        picked = self._best(request, view)
        if self._spec.index == "approximate" and request.content is not None:
            self._sent[picked].note(request.content)
        return picked

    def _best(self, request: Request, view: ClusterView) -> int:
        counts, serving, spec = view.num_outstanding, view.serving, self._spec
        least_busy = idlest(view)
        fewest, most = counts[least_busy], max(map(counts.__getitem__, serving))
        is_uneven = most - fewest > spec.balance_abs_threshold and most > spec.balance_rel_threshold * fewest
        if is_uneven or request.content is None:
            return least_busy
        cached = {replica: self._cached_tokens(replica, request, view) for replica in serving}
        longest = max(cached.values())
        if longest > spec.cache_threshold * request.prompt_tokens:
            return min(serving, key=lambda replica: (-cached[replica], counts[replica]))
        if spec.index == "exact":
            return least_busy
        return min(serving, key=lambda replica: (self._sent[replica].num_tokens, counts[replica]))

    def _cached_tokens(self, replica: int, request: Request, view: ClusterView) -> int:
        if self._spec.index == "exact":
            return view.cached_tokens(replica, request)
        return self._sent[replica].match(request.content or ())


class SentPrefixes:
    """Prompts sent to one replica, as chains of content runs; the least recently sent are forgotten first."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self.num_tokens = 0
        # A chain's end by all it consists of: its parent's number and the last run's id, with its tokens.
        self._numbers: OrderedDict[tuple[int, int], tuple[int, int]] = OrderedDict()
        self._next_number = 1

    def match(self, content: tuple[ContentRun, ...]) -> int:
        """Returns the tokens of the longest prefix that was sent before."""
        parent, matched = 0, 0
        for content_id, num_tokens in content:
            known = self._numbers.get((parent, content_id))
            if known is None:
                break
            parent, length = known
            matched += min(length, num_tokens)
            if length < num_tokens:
                break
        return matched

    def note(self, content: tuple[ContentRun, ...]) -> None:
        """Remembers a prompt."""
        parent = 0
        for content_id, num_tokens in content:
            key = (parent, content_id)
            number, length = self._numbers.pop(key, (0, 0))
            if not number:
                number, self._next_number = self._next_number, self._next_number + 1
            self.num_tokens += max(num_tokens - length, 0)
            self._numbers[key] = (number, max(length, num_tokens))
            parent = number
        while self.num_tokens > self._max_tokens:
            # SIMPLIFIED: what continues a forgotten run cannot be matched any more, but still counts until it
            # is forgotten as well; effect: somewhat less is remembered than fits.
            _, (_, length) = self._numbers.popitem(last=False)
            self.num_tokens -= length
