"""Allocators of contiguous memory: where in one address space of token slots a region goes.

First-fit and best-fit keep a list of holes; the buddy system splits and joins powers of two. All of them
merge neighbouring free space at once, so fragmentation is what the order of frees leaves behind.

Source: Knuth, The Art of Computer Programming, volume 1, section 2.5 (algorithms A, B, R, S).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Literal, NamedTuple

from ....errors import InvariantError

AllocatorName = Literal["first_fit", "best_fit", "buddy"]


class Region(NamedTuple):
    """`size` slots from `start` on."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The first slot behind it."""
        return self.start + self.size


class HoleAllocator:
    """First-fit or best-fit over a list of holes, by address; no two of them touch."""

    def __init__(self, num_slots: int, *, is_best: bool) -> None:
        self.num_free = num_slots
        self._is_best = is_best
        self._holes = [Region(0, num_slots)] if num_slots else []

    def rounded(self, size: int) -> int:
        """Returns `size`: regions are cut to measure."""
        return size

    def fits(self, size: int) -> bool:
        """Returns whether some hole is large enough."""
        return any(hole.size >= size for hole in self._holes)

    def allocate(self, size: int) -> Region:
        """Cuts a region off the front of the first, or the smallest, hole that is large enough."""
        fitting = [place for place, hole in enumerate(self._holes) if hole.size >= size]
        if not fitting:
            raise InvariantError(f"no hole of {size} slots, {self.num_free} free")
        place = min(fitting, key=lambda at: self._holes[at].size) if self._is_best else fitting[0]
        start, room = self._holes[place]
        self._holes[place : place + 1] = [Region(start + size, room - size)] if room > size else []
        self.num_free -= size
        return Region(start, size)

    def free(self, region: Region) -> None:
        """Turns the region into a hole, one with its free neighbours."""
        place = bisect_left(self._holes, region)
        first, last = place, place
        start, end = region.start, region.end
        if place and self._holes[place - 1].end == start:
            first, start = place - 1, self._holes[place - 1].start
        if place < len(self._holes) and self._holes[place].start == end:
            last, end = place + 1, self._holes[place].end
        self._holes[first:last] = [Region(start, end - start)]
        self.num_free += region.size

    def holes(self) -> list[Region]:
        """Returns the free regions by address."""
        return list(self._holes)

    def compact(self, regions: list[Region]) -> list[Region]:
        """Slides all allocated regions, given by address, to the front and returns where they are now."""
        end, moved = 0, []
        for region in regions:
            moved.append(Region(end, region.size))
            end += region.size
        self._holes = [Region(end, self.num_free)] if self.num_free else []
        return moved


class BuddyAllocator:
    """The binary buddy system: regions are powers of two, aligned to their own size.

    An address space that is no power of two begins as its binary digits, largest first, which are aligned;
    none of them has a buddy.
    """

    def __init__(self, num_slots: int) -> None:
        self.num_free = num_slots
        self._free: dict[int, list[int]] = {}  # starts by size, ascending
        self._roots: set[Region] = set()
        start = 0
        while start < num_slots:
            size = 1 << ((num_slots - start).bit_length() - 1)
            self._free[size] = [start]
            self._roots.add(Region(start, size))
            start += size

    def rounded(self, size: int) -> int:
        """Returns the power of two at or above `size`."""
        return power_of_two_from(size)

    def fits(self, size: int) -> bool:
        """Returns whether a free region of that power of two, or a larger one to split, is left."""
        wanted = power_of_two_from(size)
        return any(starts and free >= wanted for free, starts in self._free.items())

    def allocate(self, size: int) -> Region:
        """Takes the smallest free region that is large enough, halved down to the power of two."""
        wanted = power_of_two_from(size)
        room = min((free for free, starts in self._free.items() if starts and free >= wanted), default=None)
        if room is None:
            raise InvariantError(f"no region of {wanted} slots, {self.num_free} free")
        start = self._free[room].pop(0)
        while room > wanted:
            room //= 2
            insort(self._free.setdefault(room, []), start + room)
        self.num_free -= wanted
        return Region(start, wanted)

    def free(self, region: Region) -> None:
        """Frees the region and joins it with its buddy as long as that is free, too."""
        start, size = region
        self.num_free += size
        while Region(start, size) not in self._roots:
            buddies = self._free.get(size, [])
            place = bisect_left(buddies, start ^ size)
            if place == len(buddies) or buddies[place] != start ^ size:
                break
            del buddies[place]
            start, size = min(start, start ^ size), 2 * size
        insort(self._free.setdefault(size, []), start)

    def holes(self) -> list[Region]:
        """Returns the free regions by address."""
        return sorted(Region(start, size) for size, starts in self._free.items() for start in starts)


def power_of_two_from(size: int) -> int:
    """Returns the smallest power of two that is at least `size`."""
    return 1 << (size - 1).bit_length()


def largest_buddy(num_slots: int) -> int:
    """Returns the largest region that the buddy system can give out of `num_slots`."""
    return 1 << (num_slots.bit_length() - 1) if num_slots else 0


def make_allocator(name: AllocatorName, num_slots: int) -> HoleAllocator | BuddyAllocator:
    """Returns the allocator of that name over `num_slots` free slots."""
    if name == "buddy":
        return BuddyAllocator(num_slots)
    return HoleAllocator(num_slots, is_best=name == "best_fit")
