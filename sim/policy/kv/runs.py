"""What a request's blocks hold: runs of full blocks with one name each, for every cache of prefixes."""

from __future__ import annotations

from collections.abc import Iterable

from ...request import ContentRun, output_content_id
from ..live_request import LiveRequest

BlockRuns = tuple[tuple[object, int], ...]
"""Full blocks in order, as (key, number of blocks)."""


def block_runs(content: Iterable[ContentRun], block_size: int) -> BlockRuns:
    """Returns the full blocks of `content` as (key, number of blocks) runs.

    Blocks inside one content run share its id as key; a block across several runs is a run of its own,
    keyed by what it holds. The tokens after the last full block are left out.
    """
    runs: list[tuple[object, int]] = []
    across: tuple[tuple[int, int], ...] = ()
    filled = 0
    for content_id, num_tokens in content:
        if filled:
            used = min(num_tokens, block_size - filled)
            across += ((content_id, used),)
            filled, num_tokens = filled + used, num_tokens - used
            if filled < block_size:
                continue
            runs.append((across, 1))
            across, filled = (), 0
        full, rest = divmod(num_tokens, block_size)
        if full:
            runs.append((content_id, full))
        if rest:
            across, filled = ((content_id, rest),), rest
    return tuple(runs)


def runs_of(live: LiveRequest, block_size: int) -> BlockRuns:
    """Returns the full blocks of a request's prompt and answer; worked out once."""
    if live.runs is None:
        request = live.request
        answer = ContentRun(output_content_id(request.index), live.num_output_tokens)
        prompt = request.content
        if prompt is None:
            # Nothing but the request itself can hit its blocks: one run for prompt and answer.
            whole = request.prompt_tokens + live.num_output_tokens
            prompt, answer = (), ContentRun(answer.content_id, whole)
        live.runs = block_runs((*prompt, answer), block_size)
    return live.runs


def content_after(live: LiveRequest, num_tokens: int) -> tuple[int, int]:
    """Returns the content id, and how many tokens of it, that follow a prompt's first `num_tokens` tokens.

    What a prompt without content holds, and the answer, count as one run.
    """
    for content_id, size in live.request.content or ():
        if num_tokens < size:
            return content_id, size - num_tokens
        num_tokens -= size
    total = live.num_output_tokens + (0 if live.request.content is not None else live.prompt_tokens)
    return output_content_id(live.index), total - num_tokens
