"""Shared links by hand, against processor sharing in closed form, and by the laws of max-min fairness."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.sim.world.clock import Clock
from simllm.sim.world.link import Link, Links, fair_rates


class Told:
    """Links, and when each flow ended, by its name."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.links = Links(self.clock)
        self.ended_at: dict[str, float] = {}

    def start(self, name: str, path: list[Link], num_bytes: float, *, at: float = 0.0, **how: float) -> None:
        def end() -> None:
            self.ended_at[name] = self.clock.now

        self.links.call_at(at, lambda: self.links.start(path, num_bytes, end, **how))

    def run(self) -> dict[str, float]:
        self.clock.run_to_end()
        self.links.settle()
        return self.ended_at


def test_two_flows_share_a_link_and_the_second_half_goes_faster() -> None:
    # 100 B/s: 50 each until b's 100 are done at 2 s; a has 200 left, alone: 2 s more.
    told, wire = Told(), Link("wire", 100.0)
    told.start("a", [wire], 300)
    told.start("b", [wire], 100)
    assert told.run() == {"b": 2.0, "a": 4.0}
    assert (wire.num_bytes, wire.busy_s) == (400, 4.0)


def test_what_a_narrow_link_leaves_goes_to_the_others() -> None:
    # b gets 20 on the narrow link, so a gets 80 of the wide one.
    told, wide, narrow = Told(), Link("wide", 100.0), Link("narrow", 20.0)
    told.start("a", [wide], 160)
    told.start("b", [wide, narrow], 60)
    assert told.run() == {"a": 2.0, "b": 3.0}
    assert (wide.num_bytes, narrow.num_bytes) == (220, 60)


def test_a_flow_keeps_its_cap_and_its_latency() -> None:
    told, wire = Told(), Link("wire", 100.0)
    told.start("a", [wire], 50, cap=10.0, latency_s=0.25)
    told.start("b", [wire], 180)
    assert told.run() == {"b": 2.0, "a": 5.25}


def test_a_flow_of_nothing_ends_at_once() -> None:
    told = Told()
    told.start("a", [Link("wire", 1.0)], 0, at=3.0)
    assert told.run() == {"a": 3.0}


def test_busy_time_counts_each_second_once() -> None:
    told, wire = Told(), Link("wire", 10.0)
    told.start("a", [wire], 10)
    told.start("b", [wire], 10, at=5.0)
    told.run()
    assert wire.busy_s == pytest.approx(2.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), min_size=1, max_size=12))
def test_one_link_is_processor_sharing(flows: list[tuple[float, float]]) -> None:
    told, wire = Told(), Link("wire", 3.0)
    for number, (at, size) in enumerate(sorted(flows)):
        told.start(str(number), [wire], size, at=at)
    assert told.run() == pytest.approx(_shared(sorted(flows), 3.0))
    assert wire.num_bytes == pytest.approx(sum(size for _, size in flows))


def _shared(flows: list[tuple[float, float]], rate: float) -> dict[str, float]:
    """Processor sharing, event by event."""
    now, left, ended = 0.0, {}, {}
    coming = [(at, str(number), size) for number, (at, size) in enumerate(flows)]
    while coming or left:
        until_end = min(left.values()) * len(left) / rate if left else float("inf")
        until_arrival = coming[0][0] - now if coming else float("inf")
        passed = min(until_end, until_arrival)
        now += passed
        left = {name: size - passed * rate / len(left) for name, size in left.items()}
        if until_arrival <= until_end:
            _, name, size = coming.pop(0)
            left[name] = size
        for name in [name for name, size in left.items() if size <= 1e-9]:
            ended[name] = now
            del left[name]
    return ended


PATHS = st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)


@settings(max_examples=200, deadline=None)
@given(
    speeds=st.lists(st.floats(1, 100), min_size=4, max_size=4),
    groups=st.lists(
        st.tuples(PATHS, st.sampled_from([float("inf"), 2.0, 30.0]), st.integers(1, 4)),
        min_size=1,
        max_size=6,
    ),
)
def test_rates_are_max_min_fair(speeds: list[float], groups: list[tuple[list[int], float, int]]) -> None:
    links = [Link(str(number), speed) for number, speed in enumerate(speeds)]
    flows = [(tuple(links[number] for number in path), cap, size) for path, cap, size in groups]
    rates = fair_rates(flows)
    used = dict.fromkeys(links, 0.0)
    for (path, _, size), rate in zip(flows, rates, strict=True):
        for link in path:
            used[link] += rate * size
    assert all(used[link] <= link.bytes_per_s * (1 + 1e-9) for link in links)
    for (path, cap, _), rate in zip(flows, rates, strict=True):
        # Fair: a flow is at its cap, or crosses a full link on which nobody is faster.
        others = {link: [r for (p, _, _), r in zip(flows, rates, strict=True) if link in p] for link in path}
        full = [link for link in path if used[link] >= link.bytes_per_s * (1 - 1e-9)]
        assert rate == cap or any(rate >= max(others[link]) * (1 - 1e-9) for link in full)
