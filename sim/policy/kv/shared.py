"""Blocks that the sequences of one request share, by reference counts: parallel samples and beams.

A sequence holds full blocks, as a chain of runs that others may hold as well, and perhaps a block that is
filled in part. Whoever writes into a block that somebody else holds takes a copy of it first. Blocks are
counted, not numbered; runs that live and die together are one node, so a step costs O(sequences).

Source: PagedAttention (arXiv 2309.06180) section 4.4: reference counts, copy on write per block, beam search.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .blocks import num_blocks_for


class Run:
    """Full blocks behind those of `parent`; num_refs: sequences that end here, and runs behind it."""

    __slots__ = ("num_blocks", "num_refs", "parent")

    def __init__(self, num_blocks: int, parent: Run | None) -> None:
        self.num_blocks = num_blocks
        self.num_refs = 1
        self.parent = parent


class Tail:
    """A block that is filled in part; num_refs: sequences that hold it."""

    __slots__ = ("num_refs",)

    def __init__(self) -> None:
        self.num_refs = 1


class SharedSequence:
    """One sequence of a group: `num_tokens` in the cache, in full blocks and a tail."""

    __slots__ = ("num_tokens", "run", "tail")

    def __init__(self, run: Run, tail: Tail | None, num_tokens: int) -> None:
        self.run = run
        self.tail = tail
        self.num_tokens = num_tokens


class SharedBlocks:
    """The block tables of a request's sequences.

    num_blocks: blocks that they hold together; the caller takes what that grows by, and frees what it falls
    by. num_copies: blocks copied on write so far, each of `block_size` tokens at most.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.num_blocks = 0
        self.num_copies = 0
        self.sequences: dict[SharedSequence, None] = {}

    @property
    def num_unshared_blocks(self) -> int:
        """Blocks that the sequences would hold if each had its own."""
        return sum(num_blocks_for(sequence.num_tokens, self.block_size) for sequence in self.sequences)

    def start(self, num_tokens: int) -> SharedSequence:
        """Adds a sequence of its own, such as a prompt that was computed."""
        full, rest = divmod(num_tokens, self.block_size)
        sequence = SharedSequence(Run(full, None), Tail() if rest else None, num_tokens)
        self.num_blocks += full + (rest > 0)
        self.sequences[sequence] = None
        return sequence

    def fork(self, sequence: SharedSequence) -> SharedSequence:
        """Adds a sequence that holds the same blocks."""
        child = SharedSequence(sequence.run, sequence.tail, sequence.num_tokens)
        sequence.run.num_refs += 1
        if sequence.tail is not None:
            sequence.tail.num_refs += 1
        self.sequences[child] = None
        return child

    def append(self, sequence: SharedSequence) -> None:
        """Writes one token: into a new block, into the sequence's own, or into a copy of a shared one."""
        tail = sequence.tail
        if tail is None:
            sequence.tail = Tail()
            self.num_blocks += 1
        elif tail.num_refs > 1:
            tail.num_refs -= 1
            sequence.tail = Tail()
            self.num_blocks += 1
            self.num_copies += 1
        sequence.num_tokens += 1
        if sequence.num_tokens % self.block_size == 0:
            self._seal(sequence)

    def num_needed(self) -> int:
        """Returns the blocks that one more token of every sequence takes. Does not modify the tables."""
        writers: dict[Tail, int] = {}
        needed = 0
        for sequence in self.sequences:
            if sequence.tail is None:
                needed += 1
            else:
                writers[sequence.tail] = writers.get(sequence.tail, 0) + 1
        # Of those that share a tail, all but the last writer copy it.
        return needed + sum(count - 1 for count in writers.values())

    def free(self, sequence: SharedSequence) -> None:
        """Removes a sequence; what nobody else holds is free."""
        del self.sequences[sequence]
        if sequence.tail is not None:
            sequence.tail.num_refs -= 1
            self.num_blocks -= sequence.tail.num_refs == 0
        run: Run | None = sequence.run
        while run is not None:
            run.num_refs -= 1
            if run.num_refs:
                return
            self.num_blocks -= run.num_blocks
            run = run.parent

    def survive(self, beams: Sequence[SharedSequence], parents: Iterable[int]) -> list[SharedSequence]:
        """Returns the beams of the next step: `parents[i]` is which of `beams` the new beam i continues.

        Beams that nobody continues are freed; the others are forked once for each continuation but one.
        """
        heirs = [0] * len(beams)
        chosen = []
        for parent in parents:
            heirs[parent] += 1
            chosen.append(beams[parent] if heirs[parent] == 1 else self.fork(beams[parent]))
        for beam, count in zip(beams, heirs, strict=True):
            if not count:
                self.free(beam)
        return chosen

    def _seal(self, sequence: SharedSequence) -> None:
        """Adds the tail, now full and nobody else's, to the sequence's full blocks."""
        sequence.tail = None
        if sequence.run.num_refs == 1:
            sequence.run.num_blocks += 1
        else:
            # The reference of this sequence to the run becomes that of the run behind it.
            sequence.run = Run(1, sequence.run)
