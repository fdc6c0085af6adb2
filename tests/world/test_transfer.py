"""Moves by hand: latency, pieces, order, and the wires of replicas and nodes."""

from __future__ import annotations

import pytest

from simllm.errors import InvariantError
from simllm.hwmodels.profile import load_profile
from simllm.sim.policy.kv.tiers.spec import TierSpec
from simllm.sim.policy.moves import Move, When
from simllm.sim.world.clock import Clock
from simllm.sim.world.link import Link, Links
from simllm.sim.world.transfer import Route, TierMover
from simllm.sim.world.wiring import Wiring


class Told:
    """A mover, and when each of its moves ended, by owner."""

    def __init__(self, **how: object) -> None:
        self.clock = Clock()
        self.links = Links(self.clock)
        self.wire = Link("wire", 100.0)
        route = Route((self.wire,), **how)  # type: ignore[arg-type]
        self.mover = TierMover(self.links, {("dram", "hbm"): route}, num_layers=2)
        self.ended_at: dict[object, float] = {}

    def move(self, owner: str, num_bytes: int, *, num_pieces: int = 1, start_at: float = 0.0) -> None:
        move = Move("dram", "hbm", num_bytes, num_pieces, When.BESIDE, owner, start_at)
        self.mover.start(move, lambda move: self.ended_at.update({move.owner: self.clock.now}))

    def run(self) -> dict[object, float]:
        self.clock.run_to_end()
        return self.ended_at


def test_moves_of_one_direction_go_one_after_another() -> None:
    # 1 s + 0.5 s latency each: a at 1.5, b at 3.
    told = Told(latency_s=0.5)
    told.move("a", 100)
    told.move("b", 100)
    assert told.run() == {"a": 1.5, "b": 3.0}
    assert told.mover.num_bytes == {("dram", "hbm"): 200}


def test_moves_that_need_not_wait_share_the_link() -> None:
    told = Told(is_serial=False)
    told.move("a", 100)
    told.move("b", 100)
    assert told.run() == {"a": 2.0, "b": 2.0}


def test_small_pieces_are_slower_than_the_wire() -> None:
    # 50 pieces of 2 B, each 0.1 s: 20 B/s in each of 2 lanes with 1 B pieces at 0.1 s.
    told = Told(piece_s=lambda num_bytes: 0.1, num_lanes=2)
    told.move("a", 100, num_pieces=50)
    assert told.run() == {"a": pytest.approx(5.0)}


def test_a_move_waits_for_its_instant_and_one_of_nothing_ends_there() -> None:
    told = Told()
    told.move("a", 100, start_at=2.0)
    told.move("alarm", 0, start_at=7.0)
    assert told.run() == {"a": 3.0, "alarm": 7.0}


def test_a_move_without_a_route_is_a_defect() -> None:
    told = Told()
    with pytest.raises(InvariantError, match="no route from hbm to nvme"):
        told.mover.start(Move("hbm", "nvme", 1, 1, When.BESIDE), lambda move: None)


REMOTE = TierSpec(tier="remote", capacity_gib=1, read_gb_per_s=20, store_gb_per_s=30, latency_s=0.0)
NVME = TierSpec(tier="nvme", capacity_gib=1, read_gb_per_s=5, latency_s=0.0, sharing="node")


Started = tuple[int, str, str, float]
"""A move as (replica, source, target, bytes)."""


def timed(wiring: Wiring, clock: Clock, moves: list[Started]) -> list[float]:
    """Starts moves at once; returns when each has ended."""
    ended = [0.0] * len(moves)
    for number, (replica, source, target, num_bytes) in enumerate(moves):
        move = Move(source, target, int(num_bytes), 1, When.BESIDE, number)
        wiring.mover(replica).start(move, lambda move: ended.__setitem__(move.owner, clock.now))  # type: ignore[call-overload]
    clock.run_to_end()
    return ended


def wired(num_gpus: int = 4, device: str = "datasheet:h200-sxm") -> tuple[Wiring, Clock]:
    clock = Clock()
    links = Links(clock)
    profile = load_profile(device)
    wiring = Wiring(links, profile, [NVME, REMOTE], num_gpus=num_gpus, gpus_per_node=8, num_layers=32)
    return wiring, clock


def test_replicas_of_a_node_share_its_disk_and_all_share_the_store() -> None:
    # Two replicas a node: 0 and 1 share 5 GB/s of disk, 2 has another; 0 and 2 share 30 GB/s of store.
    wiring, clock = wired()
    assert timed(wiring, clock, [(i, "nvme", "dram", 10e9) for i in range(3)]) == [4.0, 4.0, 2.0]
    wiring, clock = wired()
    assert timed(wiring, clock, [(0, "remote", "dram", 30e9), (2, "remote", "dram", 30e9)]) == [2.0, 2.0]


def test_a_lower_tier_reaches_hbm_at_the_slowest_link() -> None:
    wiring, clock = wired(num_gpus=1)
    assert timed(wiring, clock, [(0, "nvme", "hbm", 10e9)])[0] == pytest.approx(2.0, abs=1e-4)


def test_copies_both_ways_at_once_are_slower_than_one_way() -> None:
    # docs/links.md, H200: 51.2e9 B/s each way beside 55.5e9 alone.
    wiring, clock = wired(num_gpus=1, device="h200-sxm")
    both = [(0, "dram", "hbm", 51.2e9), (0, "hbm", "dram", 51.2e9)]
    mover = wiring.mover(0)
    ended: list[float] = []
    for _, source, target, num_bytes in both:
        mover.start(
            Move(source, target, int(num_bytes), 1, When.BESIDE), lambda move: ended.append(clock.now)
        )
    clock.run_to_end()
    assert ended == pytest.approx([1.0, 1.0], rel=0.01)


def test_pinned_copies_go_as_measured() -> None:
    # docs/links.md: 55.6e9 B/s from host to device on one H200; the datasheet says 63e9.
    wiring, clock = wired(num_gpus=1, device="h200-sxm")
    ended = timed(wiring, clock, [(0, "dram", "hbm", 55.6e9)])
    assert ended[0] == pytest.approx(1.0, rel=5e-3)
