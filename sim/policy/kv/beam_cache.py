"""The KV cache of engines that search with beams as a group of sequences, as vLLM V0 does.

At every step some beams are continued more than once and others not at all (`beams.py`): those are forked,
these freed. Blocks are shared by reference counts and copied when written into (`shared.py`).
SIMPLIFIED: who is preempted keeps its place in the search no longer, and comes back with blocks of its own;
effect: less sharing after a shortage of blocks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ....errors import InvariantError
from ..beams import BeamModel
from ..live_request import LiveRequest, SampleGroup
from .group import GroupKvCache
from .shared import SharedBlocks, SharedSequence

_STREAM = 0x6265616D  # tells these random numbers from all others that begin with a request's number


class BeamSearch:
    """The beams of one request: which sequence each live request stands for, and who survives."""

    def __init__(self, live: LiveRequest, block_size: int) -> None:
        self.blocks = SharedBlocks(block_size)
        first = self.blocks.start(live.num_computed)
        others = [(sibling, self.blocks.fork(first)) for sibling in live.siblings]
        self.sequences: dict[LiveRequest, SharedSequence] = {live: first, **dict(others)}
        self._width = len(self.sequences)
        # By the request's number alone: the same beams under every policy.
        self._model = BeamModel(self._width, np.random.default_rng((_STREAM, live.index)))

    def step(self) -> None:
        """Lets the beams of the next step continue those of this one, by a token each."""
        if len(self.sequences) == self._width:
            survivors = self.blocks.survive(list(self.sequences.values()), self._model.parents())
            self.sequences = dict(zip(self.sequences, survivors, strict=True))
        for sequence in self.sequences.values():
            self.blocks.append(sequence)


class BeamKvCache(GroupKvCache):
    """Free blocks, of which samples share their prompt's, and beams all that they have in common."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        super().__init__(num_blocks=num_blocks, block_size=block_size)
        self._searches: dict[SampleGroup, BeamSearch] = {}

    @property
    def num_beams(self) -> int:
        """Beams that decode: each may copy a block at any step."""
        return sum(len(search.sequences) for search in self._searches.values())

    def num_copies(self, live: LiveRequest) -> int:
        """Returns the blocks that its samples take beyond those of the prompt; beams copy as they go."""
        return 0 if live.request.beam_width else super().num_copies(live)

    def fork(self, live: LiveRequest) -> None:
        """Lets the samples, or the beams, of a request whose prompt is computed share it from now on."""
        if live.group is None or not live.request.beam_width:
            super().fork(live)
        else:
            self._searches[live.group] = BeamSearch(live, self.block_size)

    def search(self) -> None:
        """Takes one step of all beams; the blocks that they begin at this context have been taken already."""
        for search in self._searches.values():
            blocks, before = search.blocks, search.blocks.num_blocks
            nominal = sum(beam.num_tokens % self.block_size == 0 for beam in search.sequences.values())
            search.step()
            self.num_free -= blocks.num_blocks - before - nominal
        if self.num_free < 0:
            raise InvariantError(f"beams took {-self.num_free} blocks too many")

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees what nobody else holds of the request's blocks."""
        search = None if live.group is None else self._searches.get(live.group)
        if live.group is None or search is None or live not in search.sequences:
            super().release(live, is_finished=is_finished)
            return
        before = search.blocks.num_blocks
        search.blocks.free(search.sequences.pop(live))
        self.num_free += before - search.blocks.num_blocks
        if not search.sequences:
            del self._searches[live.group]

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError unless held and free blocks add up to all blocks."""
        beams = {live for search in self._searches.values() for live in search.sequences}
        held = sum(search.blocks.num_blocks for search in self._searches.values())
        self.num_free += held
        try:
            super().check((live, computed) for live, computed in holders if live not in beams)
        finally:
            self.num_free -= held
