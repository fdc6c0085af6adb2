"""What prompts hold, as columns: the content runs of all requests in three flat arrays.

Ids from 0 up name content of the workload; a negative id names the answer of a request of the same
workload (`request.output_content_id`), so that a later turn can continue from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ..request import ContentRun

Runs = tuple[ContentRun, ...]
IntArray = NDArray[np.integer]


class RunContents(Sequence[Runs | None]):
    """Per request its content runs, made when asked for; None for a request that has no runs.

    content_ids, num_tokens: one entry per run, requests one after another.
    ends: (num_requests,) index just after each request's last run.
    """

    __slots__ = ("_content_ids", "_ends", "_num_tokens")

    def __init__(self, content_ids: IntArray, num_tokens: IntArray, ends: IntArray) -> None:
        self._content_ids = content_ids
        self._num_tokens = num_tokens
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Runs | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[Runs | None]: ...
    def __getitem__(self, index: int | slice) -> Runs | list[Runs | None] | None:
        if isinstance(index, slice):
            return [self._runs(row) for row in range(*index.indices(len(self)))]
        return self._runs(range(len(self))[index])

    def _runs(self, row: int) -> Runs | None:
        start = int(self._ends[row - 1]) if row else 0
        stop = int(self._ends[row])
        if start == stop:
            return None
        ids, sizes = self._content_ids[start:stop].tolist(), self._num_tokens[start:stop].tolist()
        return tuple(map(ContentRun, ids, sizes))

    def reordered(self, order: NDArray[np.int64]) -> RunContents:
        """Returns the rows in `order` (old indices); ids of answers follow their requests."""
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        counts = np.diff(self._ends, prepend=0)[order]
        ends = np.cumsum(counts)
        starts = (self._ends[order] - counts) - (ends - counts)
        picked = np.arange(counts.sum()) + np.repeat(starts, counts)
        ids = self._content_ids[picked]
        answers = ids < 0
        ids[answers] = -(rank[-ids[answers] - 1] + 1)
        return RunContents(ids, self._num_tokens[picked], ends)


def pack_contents(rows: Iterable[Iterable[tuple[int, int]] | None]) -> RunContents:
    """Returns the (content id, number of tokens) runs of all rows as columns."""
    ids: list[int] = []
    sizes: list[int] = []
    ends: list[int] = []
    for runs in rows:
        for content_id, num_tokens in runs or ():
            ids.append(content_id)
            sizes.append(num_tokens)
        ends.append(len(ids))
    columns = (np.array(column, dtype=np.int64) for column in (ids, sizes, ends))
    return RunContents(*columns)


def block_contents(block_ids: IntArray, ends: IntArray, prompt_tokens: IntArray, size: int) -> RunContents:
    """Returns contents of prompts cut into blocks of `size` tokens, the last one as long as is left.

    Blocks that follow each other wherever they occur become one run, named by the first of them: no two
    prompts part inside it, so that caches find, keep and drop it in one piece.
    block_ids: ids of all prompts' blocks, one prompt after another; `ends` as in `RunContents`. Every
    prompt has ceil(prompt_tokens / size) blocks.
    """
    num_tokens = np.full(len(block_ids), size, dtype=np.int64)
    num_tokens[ends - 1] = (prompt_tokens - 1) % size + 1
    if not len(block_ids):
        return RunContents(block_ids, num_tokens, ends)
    starts = np.flatnonzero(_begins_run(block_ids, ends))
    run_ends = np.searchsorted(starts, ends)  # runs before each prompt's end
    return RunContents(block_ids[starts], np.add.reduceat(num_tokens, starts), run_ends)


def _begins_run(block_ids: IntArray, ends: IntArray) -> NDArray[np.bool_]:
    """Returns which blocks are not always preceded by the same block, or are not all that ever follows it."""
    names, blocks = np.unique(block_ids, return_inverse=True)
    nothing = len(names)  # stands before a prompt's first block
    is_first = np.zeros(len(blocks), dtype=np.bool_)
    is_first[0] = True
    is_first[ends[:-1]] = True
    before = np.where(is_first, nothing, np.roll(blocks, 1))
    pairs = np.unique(before * (nothing + 1) + blocks)  # each (before, block) once
    num_next = np.bincount(pairs // (nothing + 1), minlength=nothing + 1)
    num_before = np.bincount(pairs % (nothing + 1), minlength=nothing + 1)
    begins: NDArray[np.bool_] = is_first | (num_next[before] > 1) | (num_before[blocks] > 1)
    return begins


def format_runs(runs: Runs | None) -> str:
    """Returns runs as one table cell: ``id:tokens;id:tokens``, empty for None."""
    return ";".join(f"{content_id}:{num_tokens}" for content_id, num_tokens in runs or ())


def parse_runs(cell: str | None) -> Runs | None:
    """Returns the runs that `format_runs` wrote.

    Raises: ValueError when the cell has another form.
    """
    if not cell:
        return None
    pairs = (pair.split(":") for pair in cell.split(";"))
    return tuple(ContentRun(int(content_id), int(num_tokens)) for content_id, num_tokens in pairs)
