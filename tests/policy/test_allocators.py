"""Allocators of contiguous memory: by hand, and the laws that all of them keep."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.errors import InvariantError
from simllm.sim.policy.kv.allocators import (
    AllocatorName,
    BuddyAllocator,
    HoleAllocator,
    Region,
    largest_buddy,
    make_allocator,
    power_of_two_from,
)

NAMES = get_args(AllocatorName)


def with_two_holes(name: AllocatorName) -> tuple[HoleAllocator | BuddyAllocator, list[Region]]:
    """100 slots with free space at 0..30 and 50..60, 60..100 taken."""
    allocator = make_allocator(name, 100)
    first, middle, small, rest = (allocator.allocate(size) for size in (30, 20, 10, 40))
    allocator.free(first)
    allocator.free(small)
    return allocator, [middle, rest]


def test_first_fit_takes_the_first_hole_and_best_fit_the_smallest() -> None:
    assert with_two_holes("first_fit")[0].allocate(10) == Region(0, 10)
    assert with_two_holes("best_fit")[0].allocate(10) == Region(50, 10)


def test_forty_free_slots_in_two_holes_hold_no_region_of_forty() -> None:
    allocator, _ = with_two_holes("first_fit")
    assert allocator.num_free == 40
    assert not allocator.fits(40)
    with pytest.raises(InvariantError, match="no hole of 40 slots, 40 free"):
        allocator.allocate(40)


def test_compaction_makes_one_hole_of_all() -> None:
    allocator, regions = with_two_holes("first_fit")
    assert isinstance(allocator, HoleAllocator)
    assert allocator.compact(regions) == [Region(0, 20), Region(20, 40)]
    assert allocator.holes() == [Region(60, 40)]


def test_freed_neighbours_become_one_hole() -> None:
    allocator = make_allocator("first_fit", 30)
    left, middle, right = (allocator.allocate(10) for _ in range(3))
    allocator.free(left)
    allocator.free(right)
    assert allocator.holes() == [left, right]
    allocator.free(middle)
    assert allocator.holes() == [Region(0, 30)]


def test_the_buddy_system_splits_down_and_joins_up_again() -> None:
    # 64: a region of 9 takes 16 of it and leaves 16 and 32.
    allocator = BuddyAllocator(64)
    region = allocator.allocate(9)
    assert region == Region(0, 16)
    assert allocator.holes() == [Region(16, 16), Region(32, 32)]
    allocator.free(region)
    assert allocator.holes() == [Region(0, 64)]


def test_a_size_that_is_no_power_of_two_begins_as_its_binary_digits() -> None:
    # 100 = 64 + 32 + 4, none of which has a buddy
    allocator = BuddyAllocator(100)
    assert allocator.holes() == [Region(0, 64), Region(64, 32), Region(96, 4)]
    assert largest_buddy(100) == 64
    regions = [allocator.allocate(size) for size in (64, 32, 4)]
    for region in regions:
        allocator.free(region)
    assert allocator.holes() == [Region(0, 64), Region(64, 32), Region(96, 4)]


@pytest.mark.parametrize(("size", "power"), [(1, 1), (2, 2), (3, 4), (25, 32), (32, 32), (33, 64)])
def test_powers_of_two_are_rounded_up(size: int, power: int) -> None:
    assert power_of_two_from(size) == power


@given(
    name=st.sampled_from(NAMES),
    num_slots=st.integers(1, 300),
    orders=st.lists(st.tuples(st.booleans(), st.integers(1, 80)), max_size=60),
)
def test_regions_and_holes_tile_the_slots_at_any_time(
    name: AllocatorName, num_slots: int, orders: list[tuple[bool, int]]
) -> None:
    allocator, regions = make_allocator(name, num_slots), list[Region]()
    for frees, size in orders:
        if frees and regions:
            allocator.free(regions.pop(size % len(regions)))
        elif allocator.fits(size):
            regions.append(allocator.allocate(size))
            assert regions[-1].size == allocator.rounded(size) >= size
        end = 0
        for region in sorted((*regions, *allocator.holes())):
            assert region.start == end
            end = region.end
        assert end == num_slots
        assert allocator.num_free == num_slots - sum(region.size for region in regions)
        if name == "buddy":
            assert all(region.start % region.size == 0 for region in (*regions, *allocator.holes()))
    for region in regions:
        allocator.free(region)
    assert allocator.holes() == make_allocator(name, num_slots).holes(), "all is one again"


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), freed=st.sets(st.integers(0, 11)))
def test_no_two_holes_of_first_fit_touch(sizes: list[int], freed: set[int]) -> None:
    allocator = make_allocator("first_fit", sum(sizes))
    regions = [allocator.allocate(size) for size in sizes]
    for place in freed:
        if place < len(regions):
            allocator.free(regions[place])
    holes = allocator.holes()
    assert all(left.end < right.start for left, right in pairwise(holes))
