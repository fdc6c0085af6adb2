"""TGI's router before v3, written down literally: its two loops, one step of the server at a time.

Source: TGI router/src/{queue,infer}.rs at v0.8.2; backends/v2/src/{queue,backend}.rs at v2.4.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(eq=False)
class Entry:
    """A request: `made` tokens so far of `max_new` that it asked for and `num_outputs` that come."""

    index: int
    prompt: int
    max_new: int
    num_outputs: int
    made: int = 0

    @property
    def context(self) -> int:
        return self.prompt + self.made


@dataclass
class LiteralTgi:
    """The queue and the running batch; `prefill_budget` is None in 2023-06."""

    total: int
    block_size: int
    prefill_budget: int | None
    ratio: float
    max_waiting_tokens: int
    entries: deque[Entry] = field(default_factory=deque)
    running: list[Entry] = field(default_factory=list)

    def steps(self) -> Iterator[tuple[list[Entry], list[Entry]]]:
        """Yields each step of the server: those whose prompts run, those who get a further token.

        Ends when the queue is empty and nobody runs; to be begun anew then, as the router is notified.
        """
        while batch := self._next_batch(None, self.total):
            yield batch, []
            self._token(batch)
            self.running, waiting_tokens = [entry for entry in batch if not _is_done(entry)], 1
            while self.running:
                batches = list(self.running)
                min_size = None
                if waiting_tokens < self.max_waiting_tokens:
                    min_size = int(len(self.running) * self.ratio)
                if new := self._next_batch(min_size, self.total - sum(map(self._max_tokens, self.running))):
                    yield new, []
                    self._token(new)
                    waiting_tokens = 1
                    batches += [entry for entry in new if not _is_done(entry)]
                yield [], batches
                self._token(batches)
                waiting_tokens += 1
                self.running = [entry for entry in batches if not _is_done(entry)]

    def _token(self, batch: list[Entry]) -> None:
        for entry in batch:
            entry.made += 1

    def _padded(self, num_tokens: int) -> int:
        if self.prefill_budget is None:
            return num_tokens
        return -(-num_tokens // self.block_size) * self.block_size

    def _max_tokens(self, entry: Entry) -> int:
        if self.prefill_budget is None:
            return entry.prompt + entry.max_new
        return self._padded(entry.prompt + entry.max_new - 1)

    def _next_batch(self, min_size: int | None, token_budget: int) -> list[Entry]:
        if not self.entries or (min_size is not None and len(self.entries) < min_size):
            return []
        batch: list[Entry] = []
        prefill_tokens = decode_tokens = 0
        while self.entries:
            entry = self.entries.popleft()
            prefill_tokens += self._padded(entry.prompt)
            decode_tokens += self._padded(entry.max_new)
            budget = self.prefill_budget
            is_over = budget is not None and prefill_tokens > self._padded(budget)
            if is_over or prefill_tokens + decode_tokens > token_budget:
                self.entries.appendleft(entry)
                break
            batch.append(entry)
        if min_size is not None and len(batch) < min_size:
            self.entries.extendleft(reversed(batch))
            return []
        return batch


def _is_done(entry: Entry) -> bool:
    return entry.made == entry.num_outputs
