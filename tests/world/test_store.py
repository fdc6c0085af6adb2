"""Stores whose nodes fail, by hand: what is lost, stale, corrupt or cut off is computed again.

Blocks of 4 tokens. A step takes 10 ms, and 1 ms for each token of a prompt unless it is the only one. A block
takes 10 ms to and from the store. HBM has 16 blocks; of a text of 41 tokens it still has one when a stranger
of 60 has gone, and the store has 10: 9 are loaded, 90 ms, and a step of one token, 10 ms, follows.
"""

from __future__ import annotations

import pytest
from harness import make_demand, play, request_rows
from toys import ToyStepModel

from simllm.sim.policy.kv.tiers.job import TierTraffic
from simllm.sim.policy.kv.tiers.rules import TierRules
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import ContentRun
from simllm.sim.workload.demand import Demand

from .tiered import Tiered, tier

MODEL = ToyStepModel(base_s=0.010, token_s=0.001)
SYNC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False)
TEXT, OTHER = 1, 2
LOADED_S, COMPUTED_S = 9 * 0.010 + 0.010, 0.010 + 0.037
"""Of the last request: with 9 blocks loaded; with the 37 tokens behind HBM's block computed."""


def texts(rows: list[tuple[float, int, int]], keys: list[int]) -> Demand:
    """Requests as (arrived_at, prompt_tokens, output_tokens), each prompt the beginning of its own text."""
    demand = make_demand(rows)
    demand.contents = [(ContentRun(key, tokens),) for key, (_, tokens, _) in zip(keys, rows, strict=True)]
    return demand


AGAIN = texts([(0.0, 41, 1), (1.0, 60, 1), (2.0, 41, 1)], [TEXT, OTHER, TEXT])


def run(demand: Demand = AGAIN, load: str = "before", **store: object) -> tuple[float, Tiered]:
    """Returns the TTFT of the last request and the caches; all blocks of a text lie on the same nodes."""
    tiered = Tiered([tier("remote", 100, store=store)], TierRules(load=load, num_direct=1))  # type: ignore[arg-type]
    recorder, _ = play(
        demand, model=MODEL, spec=SYNC, num_blocks=16, caches=True, checks_blocks=True, tiers=tiered.make
    )
    rows = request_rows(recorder)
    return round(float(rows[-1, 2] - rows[-1, 0]), 6), tiered


def traffic(tiered: Tiered) -> TierTraffic:
    return tiered.caches[0].traffic["remote"]


def lose(at_s: float, *nodes: int) -> list[dict[str, float]]:
    return [{"node": node, "at_s": at_s} for node in nodes]


def test_a_store_that_does_not_fail_is_as_any_tier() -> None:
    ttft, tiered = run()
    assert ttft == pytest.approx(LOADED_S)
    assert traffic(tiered).recomputed_by == {}


def test_what_was_lost_with_its_only_copy_is_computed_again_and_counted() -> None:
    ttft, tiered = run(losses=lose(1.5, 0, 1, 2, 3))
    assert ttft == pytest.approx(COMPUTED_S)
    # Of 41 tokens at least one is computed anyhow: 9 blocks behind HBM's.
    assert traffic(tiered).recomputed_by == {"lost": 36}
    assert tiered.caches[0].tiers[0].store.num_lost == 25, "10 blocks of the text and 15 of the stranger"


@pytest.mark.parametrize("write", ["synchronous", "quorum", "asynchronous"])
@pytest.mark.parametrize("node", [0, 1])
def test_one_of_two_copies_is_enough(write: str, node: int) -> None:
    ttft, tiered = run(num_nodes=2, replication=2, write=write, losses=lose(1.9, node))
    assert ttft == pytest.approx(LOADED_S)
    assert tiered.caches[0].tiers[0].store.num_lost == 0


@pytest.mark.parametrize(
    ("write", "sent", "replicated"), [("synchronous", 75, 0), ("quorum", 50, 25), ("asynchronous", 25, 50)]
)
def test_the_writer_sends_what_must_be_there_and_the_nodes_make_the_rest(
    write: str, sent: int, replicated: int
) -> None:
    # 10 and 15 blocks in 3 copies; the third request computes nothing new.
    _, tiered = run(num_nodes=3, replication=3, write=write)
    copies = tiered.caches[0].tiers[0].store.copies
    assert copies is not None
    assert traffic(tiered).written_bytes == sent << 20
    assert (copies.num_in, copies.num_replicated) == (75, replicated)


@pytest.mark.parametrize(("write", "expected"), [("synchronous", COMPUTED_S), ("asynchronous", LOADED_S)])
def test_a_write_is_readable_when_its_copies_are_there(write: str, expected: float) -> None:
    # Stored from 0.051 s on, 10 blocks at 10 ms: one copy takes until 0.151 s, three until 0.351 s. The
    # stranger's 15 blocks wait behind them.
    demand = texts([(0.0, 41, 1), (0.06, 60, 1), (0.25, 41, 1)], [TEXT, OTHER, TEXT])
    assert run(demand, num_nodes=3, replication=3, write=write)[0] == pytest.approx(expected)


def test_lost_copies_are_made_anew_from_those_left() -> None:
    # Node 1 goes at 1.5 s with a copy of all 25 blocks: at 10 ms each they are on node 0 by 1.75 s, so that
    # the loss of node 2 takes none away.
    ttft, tiered = run(losses=[*lose(1.5, 1), *lose(1.9, 2)], num_nodes=3, replication=2)
    copies = tiered.caches[0].tiers[0].store.copies
    assert copies is not None
    assert ttft == pytest.approx(LOADED_S)
    assert tiered.caches[0].tiers[0].store.num_lost == 0
    assert (copies.num_rebuilt, copies.num_lost) == (25, 50)


def test_without_a_rebuild_the_next_loss_takes_the_last_copy() -> None:
    how = {"num_nodes": 2, "replication": 2, "rebuild": "recompute"}
    losses = [{"node": 0, "at_s": 1.3, "back_after_s": 0.1}, {"node": 1, "at_s": 1.9}]
    assert run(losses=losses, **how)[0] == pytest.approx(COMPUTED_S)
    how["rebuild"] = "replicas"
    assert run(losses=losses, **how)[0] == pytest.approx(LOADED_S), "back at 1.4 s, full again by 1.65 s"


def test_a_loss_that_the_index_does_not_know_yet_costs_a_failed_load() -> None:
    ttft, tiered = run(losses=lose(1.9, 0, 1, 2, 3), index_delay_s=0.3, timeout_s=0.05)
    assert ttft == pytest.approx(0.05 + COMPUTED_S)
    assert traffic(tiered).stale_hits == 1
    assert traffic(tiered).recomputed_by == {"stale": 36}


def test_a_request_that_waits_for_its_load_alone_waits_for_its_failure_too() -> None:
    how = {"losses": lose(1.9, 0, 1, 2, 3), "index_delay_s": 0.3, "timeout_s": 0.05}
    assert run(load="async", **how)[0] == pytest.approx(0.05 + COMPUTED_S)


def test_what_the_index_does_not_name_yet_is_not_found() -> None:
    # Stored by 0.151 s; named from 2.151 s on.
    assert run(index_delay_s=2.0)[0] == pytest.approx(COMPUTED_S)


def test_behind_a_partition_nothing_is_found_and_after_it_all_is() -> None:
    cut = {"nodes": [0, 1, 2, 3], "at_s": 1.9, "for_s": 0.05}
    assert run(partitions=[cut])[0] == pytest.approx(LOADED_S)
    ttft, tiered = run(partitions=[{**cut, "for_s": 0.5}])
    assert ttft == pytest.approx(COMPUTED_S)
    assert traffic(tiered).recomputed_by == {"unreachable": 36}
    assert tiered.caches[0].tiers[0].store.num_lost == 0


def test_a_store_out_of_reach_takes_nothing_in() -> None:
    _, tiered = run(partitions=[{"nodes": [0, 1, 2, 3], "at_s": 0.9, "for_s": 0.5}])
    copies = tiered.caches[0].tiers[0].store.copies
    assert copies is not None
    assert copies.num_refused == 2, "the stranger's prompt, when it was computed and when it ended"


def test_all_is_loaded_and_what_follows_a_corrupt_block_is_computed() -> None:
    # With nearly all blocks corrupt the first one is: 90 ms for nothing.
    ttft, tiered = run(checksum_failures=0.999999)
    assert ttft == pytest.approx(0.090 + COMPUTED_S)
    assert traffic(tiered).checksum_failures == 1
    assert traffic(tiered).recomputed_by == {"checksum": 36}
    assert traffic(tiered).read_bytes == 9 << 20
    assert tiered.caches[0].tiers[0].store.num_lost == 1, "the corrupt block, which is stored again then"


def test_after_a_change_of_version_nothing_computed_before_is_used() -> None:
    ttft, tiered = run(version_changes=[1.5])
    assert ttft == pytest.approx(0.010 + 0.041), "HBM's block is of the old version, too"
    assert traffic(tiered).recomputed_by == {"version": 40}
