"""Plays requests on a cache that counts and on a literal one, and compares them after every move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

from simllm.sim.policy.kv.ksana import KsanaKvCache
from simllm.sim.policy.kv.prefix import PrefixKvCache
from simllm.sim.policy.kv.radix import RadixKvCache
from simllm.sim.policy.live_request import LiveRequest
from simllm.sim.request import ContentRun, Request, output_content_id

from .cache_tokens import Token
from .ksana_cache_reference import LiteralKsanaCache
from .radix_cache_reference import LiteralRadixCache
from .trtllm_cache_reference import LiteralTrtllmCache

NUM_FAMILIES, LONGEST, NOBODY_S = 3, 20, 999


class Prompt(NamedTuple):
    """A prompt: so much of a family's text (or of an earlier conversation), then text of its own."""

    family: int
    shared_tokens: int
    own_tokens: int
    output_tokens: int
    priority: int = 0
    goes_on: bool = False


PROMPTS = st.builds(
    Prompt,
    family=st.integers(0, NUM_FAMILIES - 1),
    shared_tokens=st.sampled_from([1, 4, 7, 12, 16, LONGEST]),
    own_tokens=st.integers(1, 9),
    output_tokens=st.sampled_from([1, 2, 5, 12]),
    priority=st.integers(0, 2),
    goes_on=st.booleans(),
)
NUM_STEPS = st.sampled_from([1, 2, 5, 12, 20])


def moves(*others: str) -> st.SearchStrategy[list[Prompt | int | tuple[str, int]]]:
    """Prompts that arrive, steps between them, and what else happens to a request of some number."""
    numbered = st.tuples(st.sampled_from(["give up", *others]), st.integers(0, 3))
    return st.lists(st.one_of(PROMPTS, PROMPTS, NUM_STEPS, NUM_STEPS, numbered), min_size=8, max_size=50)


@dataclass(eq=False)
class Running:
    """A request that holds blocks: `tokens` it has, of which `computed` are in the cache."""

    live: LiveRequest
    tokens: list[Token]
    computed: int = 0
    is_decoding: bool = False
    cached: list[Token] = field(default_factory=list)


class CacheSideBySide:
    """Both caches under the same requests; all decodes get a token in each step."""

    def __init__(
        self,
        counting: RadixKvCache | KsanaKvCache | PrefixKvCache,
        literal: LiteralRadixCache | LiteralKsanaCache | LiteralTrtllmCache,
        *,
        chunk: int,
    ) -> None:
        self.counting, self.literal, self.chunk = counting, literal, chunk
        self.size = counting.block_size
        self.running: list[Running] = []
        self.asleep: list[Running] = []
        self.said: list[tuple[ContentRun, ...]] = []
        self.num_sent = 0
        self.num_hit_blocks = 0
        self.num_evicting = 0  # times that blocks were taken with too few unused ones

    def arrive(self, prompt: Prompt) -> None:
        """Admits a request, its first chunk computed in the next step, if its blocks are there."""
        content: tuple[ContentRun, ...] = (ContentRun(prompt.family, prompt.shared_tokens),)
        if prompt.goes_on and self.said:
            content = self.said[prompt.family % len(self.said)]
        content = (*content, ContentRun(1000 + self.num_sent, prompt.own_tokens))
        size = sum(run.num_tokens for run in content)
        request = Request(self.num_sent, 0.0, size, prompt.output_tokens, content, priority=prompt.priority)
        self.num_sent += 1
        live = LiveRequest(request, prompt.output_tokens)
        one = Running(live, [(run.content_id, i) for run in content for i in range(run.num_tokens)])
        length = self.counting.match_len(live)
        hit = self.counting.lookup(live)
        assert hit.num_blocks * self.size == length
        assert hit.num_blocks == self.literal.match(one.tokens[:-1])
        computed = min(hit.num_blocks * self.size + self.chunk, size)
        needed = -(-computed // self.size) - hit.num_blocks
        if needed + hit.num_free_blocks <= self.counting.num_free:
            self.num_hit_blocks += hit.num_blocks
            self.counting.admit(live, hit, computed)
            self.literal.admit(live, one.tokens, hit.num_blocks, computed)
            one.computed = live.num_computed = computed
            self.running.append(one)
        self.compare()

    def step(self) -> None:
        """One engine step: a token for each decode, then chunks' ends, then more chunks."""
        if isinstance(self.counting, KsanaKvCache):
            self.counting.step += 1
        for one in [one for one in self.running if one.is_decoding]:
            self._decode(one)
        for one in [one for one in self.running if not one.is_decoding]:
            self._continue(one)
        self.compare()

    def _decode(self, one: Running) -> None:
        if one.computed % self.size == 0 and not self._take(one, 1):
            self._lose(one)
            return
        live = one.live
        one.tokens.append((output_content_id(live.index), one.computed - live.prompt_tokens))
        one.computed += 1
        live.num_computed = one.computed
        live.num_sampled += 1
        self.literal.filled(live, one.tokens[: one.computed])
        if live.num_sampled == live.num_output_tokens:
            answer = ContentRun(output_content_id(live.index), one.computed - live.prompt_tokens)
            self.said.append((*(live.request.content or ()), answer))
            self._release(one, is_finished=True)

    def _lose(self, one: Running) -> None:
        """Takes a decode's blocks away that found none: its last token came in the step before."""
        if isinstance(self.counting, KsanaKvCache):
            self.counting.step -= 1
        self._release(one, is_finished=False)
        if isinstance(self.counting, KsanaKvCache):
            self.counting.step += 1

    def _continue(self, one: Running) -> None:
        live = one.live
        self.counting.computed(live, one.computed)
        is_whole = one.computed >= live.prompt_tokens
        self.literal.computed(
            live, one.tokens[: one.computed], is_whole=is_whole, priority=live.request.priority
        )
        if is_whole:
            live.num_sampled = 1
            one.is_decoding = True
            if live.num_output_tokens == 1:
                self._release(one, is_finished=True)
            return
        computed = min(one.computed + self.chunk, live.prompt_tokens)
        if self._take(one, -(-computed // self.size) - -(-one.computed // self.size)):
            one.computed = live.num_computed = computed

    def give_up(self, number: int) -> None:
        """Takes a running request's blocks away; it does not come back."""
        if self.running:
            self._release(self.running[number % len(self.running)], is_finished=False)
            self.compare()

    def swap_out(self, number: int) -> None:
        """Moves a decoding request to the host, at once."""
        decoding = [one for one in self.running if one.is_decoding]
        if decoding:
            one = decoding[number % len(decoding)]
            counting, literal = self._ksana()
            counting.check((other.live, other.computed) for other in self.running)
            num_moved, _ = counting.swap_out(one.live)
            assert num_moved == literal.swap_out(one.live)
            self.running.remove(one)
            self.compare()
            counting.swapped_out(one.live)
            literal.swapped_out(one.live)
            self.asleep.append(one)
            self.compare()

    def swap_in(self, number: int, *, drops: bool) -> None:
        """Moves a request back, at once, or forgets it."""
        if not self.asleep:
            return
        one = self.asleep[number % len(self.asleep)]
        counting, literal = self._ksana()
        if drops:
            counting.drop_swapped(one.live)
            literal.drop_swapped(one.live)
            self.asleep.remove(one)
        elif literal.num_away(one.live) <= counting.num_free:
            counting.step += 1
            assert counting.swap_in(one.live) == literal.num_away(one.live)
            counting.swapped_in(one.live)
            literal.swap_in(one.live)
            self.asleep.remove(one)
            self.running.append(one)
        self.compare()

    def _ksana(self) -> tuple[KsanaKvCache, LiteralKsanaCache]:
        assert isinstance(self.counting, KsanaKvCache) and isinstance(self.literal, LiteralKsanaCache)
        return self.counting, self.literal

    def _take(self, one: Running, num_blocks: int) -> bool:
        if num_blocks > self.counting.num_free:
            return False
        self.num_evicting += num_blocks > self.literal.unused
        self.counting.take(num_blocks)
        self.literal.take(one.live, num_blocks)
        return True

    def _release(self, one: Running, *, is_finished: bool) -> None:
        self.running.remove(one)
        self.counting.release(one.live, is_finished=is_finished)
        self.literal.release(
            one.live,
            one.tokens[: one.computed],
            is_finished=is_finished,
            priority=one.live.request.priority,
        )

    def compare(self) -> None:
        """Raises: AssertionError unless both have the same free, the same cached, and the counts add up."""
        assert self.counting.num_free == self.literal.num_free
        texts = [(ContentRun(family, LONGEST),) for family in range(NUM_FAMILIES)]
        for content in (*texts, *self.said[-NUM_FAMILIES:]):
            tokens = [(run.content_id, i) for run in content for i in range(run.num_tokens)]
            asks = (*content, ContentRun(NOBODY_S, 1))
            live = LiveRequest(Request(-1, 0.0, len(tokens) + 1, 1, asks), 1)
            assert self.counting.match_len(live) == self.size * self.literal.peek(tokens)
        self.counting.check((one.live, one.computed) for one in self.running)
        if isinstance(self.counting, KsanaKvCache):
            assert self.counting.swap.num_host_blocks == self._ksana()[1].num_on_host
