"""A request: what is asked for, immutable; its state while it is served is `policy/live_request.py`."""

from __future__ import annotations

from typing import NamedTuple


class ContentRun(NamedTuple):
    """`num_tokens` tokens of a prompt whose content is named by `content_id`.

    Two prompts share a prefix as far as their leading runs are equal; of two runs with the same id the
    shorter one is the beginning of the longer one.
    """

    content_id: int
    num_tokens: int


def output_content_id(index: int) -> int:
    """Returns the content id of request `index`'s own answer, for prompts that continue from it."""
    return -(index + 1)


class Request(NamedTuple):
    """One request as it was demanded.

    index: row of the workload, also the row of the requests table.
    arrived_at [s] since the start. prompt_tokens >= 1, image tokens included; output_tokens >= 1.
    num_samples: answers asked for (`n`), each of output_tokens; beam_width: beams that search for one
    answer, 0 for sampling.
    tenant: whose it is, by its place in the scenario's list of tenants.
    content: runs that cover the prompt exactly; None for a prompt that shares nothing with any other.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    arrived_at: float
    prompt_tokens: int
    output_tokens: int
    content: tuple[ContentRun, ...] | None = None
    session_id: int = -1
    turn: int = 0
    image_tokens: int = 0
    reasoning_tokens: int = 0
    priority: int = 0
    num_samples: int = 1
    beam_width: int = 0
    tenant: int = 0
