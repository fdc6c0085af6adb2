"""Results of `vllm bench serve --save-result --save-detailed`: what was sent, and when.

Besides the arrays that vLLM writes (seconds and tokens, one item per request in order of sending), optional
keys are read: `arrivals` (closed, poisson, trace), `prompt_block_hashes` with `prompt_hash_block_tokens`, and
`images` (per request [height, width] pairs in pixels, whose tokens are part of `input_lens`).
Source: vllm/benchmarks/serve.py (keys of the result, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as counter
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import TraceError
from ..arrange import from_zero
from ..content import RunContents, pack_contents
from ..demand import Demand, FloatColumn, IntColumn
from ..spec import VllmBenchSpec
from .lines import Row, check_count, check_instant, count, open_text, parse_object


class BenchResult:
    """One result file; `rows` are the first requests that were answered, in order of sending."""

    def __init__(self, path: Path, num_requests: int | None) -> None:
        self.path = path
        with open_text(path) as file:
            self.scalars: Row = parse_object(file.read(), path, None)
        self.num_sent = len(self._list("input_lens"))
        answered = list(range(self.num_sent))
        if self.scalars.get("errors"):
            answered = [row for row, error in enumerate(self._list("errors")) if not error]
        if not answered:
            raise TraceError(path, None, "holds no answered requests")
        self.num_failed = self.num_sent - len(answered)
        self._answered, self.rows = answered, answered[:num_requests]

    def items(self, name: str) -> list[Any]:
        """Returns the items of an array that belong to `rows`.

        Raises: TraceError when there is no such array or its length differs from that of `input_lens`.
        """
        items = self._list(name)
        return [items[row] for row in self.rows]

    def counts(self, name: str) -> IntColumn:
        """Returns an array of whole numbers >= 1."""
        items = self.items(name)
        for row, item in zip(self.rows, items, strict=True):
            check_count(item, f"{name}[{row}]", self.path, None)
        return np.array(items, dtype=np.int64)

    def start_times(self) -> FloatColumn:
        """Returns the instants of sending [s] from the beginning of the run.

        vLLM writes readings of a clock that does not begin with the run, and so goes beyond its duration;
        such instants are counted from the first answered request.
        """
        items = self._list("start_times")
        for row in self._answered:
            check_instant(items[row], f"start_times[{row}]", self.path, None)
        times = np.array([items[row] for row in self._answered], dtype=np.float64)
        if times.max() > self.scalars.get("duration", 0):
            times = from_zero(times)
        return times[: len(self.rows)]

    @property
    def num_clients(self) -> int | None:
        """Clients of the closed loop that was recorded, None if it was none."""
        recorded = self.scalars.get("arrivals")
        is_unlimited = self.scalars.get("request_rate") in ("inf", float("inf"))
        is_closed = is_unlimited if recorded is None else recorded == "closed"
        if not is_closed or self.scalars.get("max_concurrency") is None:
            return None
        return count(self.scalars, "max_concurrency", self.path, None)

    def _list(self, name: str) -> list[Any]:
        value = self.scalars.get(name)
        if not isinstance(value, list):
            raise TraceError(self.path, None, f"has no list {name!r}; was it saved with --save-detailed?")
        if name != "input_lens" and len(value) != self.num_sent:
            what = f"{name} has {len(value)} items, input_lens {self.num_sent}"
            raise TraceError(self.path, None, what)
        return value


def load_vllm_bench(spec: VllmBenchSpec, path: Path) -> Demand:
    """Returns the requests that the engine answered, open or in a closed loop.

    Raises: TraceError when the file lacks what the replay needs or an item is malformed.
    """
    return demand_of(BenchResult(path, spec.num_requests), spec)


def demand_of(result: BenchResult, spec: VllmBenchSpec, start_times: FloatColumn | None = None) -> Demand:
    """Returns the requests of a result that was read; `start_times` [s] stand in for the file's.

    Raises: TraceError as `load_vllm_bench` does.
    """
    prompts = result.counts("input_lens")
    num_clients = _num_clients(spec, result)
    if num_clients is not None:
        start_times = _closed_loop_starts(result, num_clients)
    elif start_times is None:
        start_times = result.start_times()
    failed = f"{result.num_failed} requests that failed when recorded are left out"
    return Demand(
        start_times,
        prompts,
        result.counts("output_lens"),
        contents=_contents(result, prompts),
        image_tokens=_image_tokens(result, prompts, spec.image_token_pixels),
        num_clients=num_clients,
        origin=f"vllm bench result {spec.path}",
        notes=(failed,) if result.num_failed else (),
    )


def _num_clients(spec: VllmBenchSpec, result: BenchResult) -> int | None:
    recorded = result.num_clients
    if spec.arrivals == "replay" or (spec.arrivals == "auto" and recorded is None):
        return None
    num_clients = spec.num_clients or recorded
    if num_clients is None:
        raise TraceError(result.path, None, "was not recorded as a closed loop: give num_clients")
    return num_clients


def _closed_loop_starts(result: BenchResult, num_clients: int) -> FloatColumn:
    """Returns when each row may be sent at the earliest [s]: clients begin as they did when recorded."""
    starts = np.zeros(len(result.rows))
    if num_clients == result.num_clients and "start_times" in result.scalars:
        starts[:num_clients] = np.sort(result.start_times()[:num_clients])
        starts[num_clients:] = starts[:num_clients].max()
    return starts


def _contents(result: BenchResult, prompts: IntColumn) -> RunContents | None:
    if not result.scalars.get("prompt_block_hashes"):
        return None
    size = count(result.scalars, "prompt_hash_block_tokens", result.path, None)
    hashes = result.items("prompt_block_hashes")
    for row, ids, num_tokens in zip(result.rows, hashes, prompts.tolist(), strict=True):
        allowed = {num_tokens // size, -(-num_tokens // size)}
        if not isinstance(ids, list) or len(ids) not in allowed:
            what = f"must have an id for each block of {size} of its {num_tokens} tokens"
            raise TraceError(result.path, None, f"prompt_block_hashes[{row}] {what}")
    return pack_contents(_block_runs(hashes, prompts, size))


def _block_runs(hashes: list[list[Any]], prompts: IntColumn, size: int) -> Iterator[list[tuple[int, int]]]:
    """Yields per prompt its blocks as runs, hashes numbered as they appear; a tail without one is its own."""
    fresh = counter()
    numbers: dict[str, int] = {}
    for ids, num_tokens in zip(hashes, prompts.tolist(), strict=True):
        runs = []
        for block, block_hash in enumerate(ids):
            key = str(block_hash)
            number = numbers[key] if key in numbers else numbers.setdefault(key, next(fresh))
            runs.append((number, min(size, num_tokens - block * size)))
        tail = num_tokens - len(ids) * size
        yield [*runs, (next(fresh), tail)] if tail > 0 else runs


def _image_tokens(result: BenchResult, prompts: IntColumn, side: int) -> IntColumn | None:
    """Returns the embeddings that the vision encoder makes per request, None if no request has an image.

    Each side is rounded to whole squares of `side` pixels, as Qwen2-VL's processor resizes images.
    Source: transformers, models/qwen2_vl/image_processing_qwen2_vl.py (smart_resize).
    """
    if not any(result.scalars.get("images") or ()):
        return None
    tokens = np.zeros(len(prompts), dtype=np.int64)
    for place, (row, images) in enumerate(zip(result.rows, result.items("images"), strict=True)):
        name = f"images[{row}]"
        for image in images or ():
            if not isinstance(image, list) or len(image) != 2:
                raise TraceError(result.path, None, f"{name} must hold [height, width] pairs (got {image})")
            height, width = (check_count(pixels, name, result.path, None) for pixels in image)
            tokens[place] += max(1, round(height / side)) * max(1, round(width / side))
        if tokens[place] > prompts[place]:
            what = f"makes {tokens[place]} tokens, more than its prompt of {prompts[place]}"
            raise TraceError(result.path, None, f"{name} {what}")
    return tokens
