"""A request: what is asked for (`Request`, immutable) and its state while it is served (`LiveRequest`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .policy.kv.prefix import PrefixNode


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


class LiveRequest:
    """A request on its way through one engine; schedulers and the KV cache keep their state here.

    num_output_tokens: tokens it will produce here (the model's context limit may cut the demand).
    num_sampled: tokens sampled by the steps scheduled so far, exact while the request is not decoding
    (a decoding one is described by `DecodeSet`). num_computed: tokens whose KV is in the cache, likewise.
    """

    __slots__ = (
        "admission",
        "cached_node",
        "context_base",
        "final_step",
        "index",
        "is_decoding",
        "last_token_at",
        "num_cached_blocks",
        "num_cached_tokens",
        "num_computed",
        "num_duplicate_blocks",
        "num_lost_tokens",
        "num_output_tokens",
        "num_preemptions",
        "num_recomputed_tokens",
        "num_sampled",
        "prompt_tokens",
        "request",
        "runs",
    )

    def __init__(self, request: Request, num_output_tokens: int) -> None:
        self.request = request
        self.index = request.index
        self.prompt_tokens = request.prompt_tokens
        self.num_output_tokens = num_output_tokens
        self.num_computed = 0
        self.num_sampled = 0
        # Cached tokens hit at the first admission; tokens lost to preemption and computed once more.
        self.num_cached_tokens = 0
        self.num_preemptions = 0
        self.num_lost_tokens = 0
        self.num_recomputed_tokens = 0
        self.last_token_at = 0.0
        # Decoding: at step s the context is `context_base + s`; the last token comes in `final_step`.
        self.is_decoding = False
        self.context_base = 0
        self.final_step = 0
        self.admission = 0
        # Prefix cache: deepest node held, blocks covered by held nodes, own copies of cached blocks.
        self.cached_node: PrefixNode | None = None
        self.num_cached_blocks = 0
        self.num_duplicate_blocks = 0
        self.runs: tuple[tuple[object, int], ...] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill when it is (re)admitted: the prompt and what was already sampled."""
        return self.prompt_tokens + self.num_sampled
