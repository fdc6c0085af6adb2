"""Host memory that engines swap running requests' KV out to."""

from __future__ import annotations

from typing import NamedTuple

from ....errors import InvariantError
from ..live_request import LiveRequest
from ..moves import Move, When


class BlockCopies(NamedTuple):
    """One block of KV as it is copied: its bytes on all GPUs of a replica together, GPUs, layers."""

    num_bytes: int = 0
    num_gpus: int = 1
    num_layers: int = 1


class SwapSpace:
    """Blocks of host memory, counted by the requests that they belong to.

    pieces_per_block: separate copies in which the engine moves one block.
    """

    def __init__(self, num_blocks: int, *, block_bytes: int, pieces_per_block: int) -> None:
        self.num_blocks = num_blocks
        self.num_free = num_blocks
        self._block_bytes = block_bytes
        self._pieces_per_block = pieces_per_block
        self._held: dict[LiveRequest, int] = {}

    def take(self, live: LiveRequest, num_blocks: int, when: When) -> Move:
        """Gives a request blocks and returns the move that fills them; they must be free."""
        self.num_free -= num_blocks
        self._held[live] = num_blocks
        return self._move("hbm", "dram", num_blocks, when, live)

    def bring_back(self, live: LiveRequest, when: When) -> Move:
        """Returns the move that brings a request's blocks back to the GPUs; they stay its own."""
        return self._move("dram", "hbm", self._held[live], when, live)

    def release(self, live: LiveRequest) -> None:
        """Frees a request's blocks, if it has any."""
        self.num_free += self._held.pop(live, 0)

    def check(self) -> None:
        """Raises: InvariantError unless held and free blocks add up to all blocks."""
        held = sum(self._held.values())
        if self.num_free < 0 or held + self.num_free != self.num_blocks:
            raise InvariantError(f"host: held {held} + free {self.num_free} != blocks {self.num_blocks}")

    def _move(self, source: str, target: str, num_blocks: int, when: When, live: LiveRequest) -> Move:
        num_bytes, num_pieces = num_blocks * self._block_bytes, num_blocks * self._pieces_per_block
        return Move(source, target, num_bytes, num_pieces, when, live)
