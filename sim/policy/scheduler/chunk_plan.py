"""How running requests share the token budget of a step, in the order of their admission."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..live_request import LiveRequest

Prefill = tuple[LiveRequest, int, int]
"""A chunk of a step: a request, its new tokens, and the computed ones before them."""


def share_budget(
    running: Iterable[LiveRequest],
    prefilling: Sequence[LiveRequest],
    *,
    num_decodes: int,
    budget: int,
    threshold: int,
    is_newest: bool,
) -> tuple[list[Prefill], list[LiveRequest]]:
    """Returns the prefills' chunks, and the decodes that the budget does not reach.

    prefilling: those of `running` that still compute their prompts, one at least. threshold: most tokens
    of one prompt, 0 for no limit. is_newest: the first of them is the one admitted last.
    """
    lacking = [live.num_tokens - live.num_computed for live in prefilling]
    wanted = [min(n, threshold) if threshold else n for n in lacking]
    if not is_newest and num_decodes + sum(wanted) > budget:
        return _share_in_order(running, dict(zip(prefilling, wanted, strict=True)), budget)
    sizes = [min(wanted[0], budget - num_decodes)] if is_newest else wanted
    chunks = zip(prefilling, sizes, strict=True)
    return [(live, size, live.num_computed) for live, size in chunks if size], []


def _share_in_order(
    running: Iterable[LiveRequest], wanted: dict[LiveRequest, int], budget: int
) -> tuple[list[Prefill], list[LiveRequest]]:
    """Walks the running requests one by one: a chunk before them may use up decodes' budget."""
    prefills: list[Prefill] = []
    stalled: list[LiveRequest] = []
    for live in running:
        size = min(wanted.get(live, 1 if live.is_decoding else 0), budget)
        budget -= size
        if live in wanted and size:
            prefills.append((live, size, live.num_computed))
        elif live.is_decoding and not size:
            stalled.append(live)
    return prefills, stalled
