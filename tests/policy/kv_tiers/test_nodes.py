"""Nodes of one store: where copies lie, what a loss takes, what is copied first, and when things happen."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from pydantic import ValidationError

from simllm.sim.policy.kv.tiers.copies import StoreCopies
from simllm.sim.policy.kv.tiers.eviction.lru import LruEviction
from simllm.sim.policy.kv.tiers.gone import LOST, NAMED, GoneIndex
from simllm.sim.policy.kv.tiers.nodes import StoreNodes
from simllm.sim.policy.kv.tiers.outages import Outage, outages
from simllm.sim.policy.kv.tiers.runs import StoredRun
from simllm.sim.policy.kv.tiers.spec import TierSpec
from simllm.sim.policy.kv.tiers.store import TierStore
from simllm.sim.policy.kv.tiers.store_spec import StoreSpec

A, B = 1, 2


def make(**store: object) -> tuple[TierStore, StoreNodes]:
    copies = StoreCopies(StoreSpec.model_validate(store))
    made = TierStore("remote", 1000, LruEviction(), copies)
    return made, StoreNodes(made)


def put(store: TierStore, key: int, num_blocks: int) -> None:
    runs = ((key, num_blocks),)
    spans, _ = store.insert(runs, (0, num_blocks), store.use(0.0))
    store.complete(runs, spans)
    store.check()


def test_nodes_share_content_about_equally() -> None:
    copies = StoreCopies(StoreSpec(num_nodes=4, replication=2))
    placed = Counter[int]()
    for key in range(4000):
        nodes = copies.place(StoredRun(key, 64, StoredRun(None, 0, None)))
        placed.update(node for node in range(4) if nodes >> node & 1)
    # 8000 copies over 4 nodes, binomial with a deviation of 32: within five of these.
    assert all(abs(number - 2000) < 160 for number in placed.values())


def test_a_loss_moves_only_what_the_lost_node_had() -> None:
    copies = StoreCopies(StoreSpec(num_nodes=4, replication=1))
    runs = [StoredRun(key, 64, StoredRun(None, 0, None)) for key in range(200)]
    before = [copies.place(run) for run in runs]
    copies.lost(2)
    after = [copies.place(run) for run in runs]
    assert all(new == old for old, new in zip(before, after, strict=True) if old != 1 << 2)
    assert 1 << 2 not in after


def test_a_loss_breaks_a_prompt_at_its_first_lost_stripe() -> None:
    store, nodes = make(num_nodes=4, stripe_blocks=8)
    put(store, A, 80)
    first = next(run for run in store.tree.stored() if run.first_block == 0)
    lost = next(node for node in range(4) if not first.copies >> node & 1)
    nodes.happens(Outage(1.0, 0, "lost", lost))
    store.check()
    found = store.match(((A, 80),), 0, 80)
    assert 0 < found < 80
    assert found % 8 == 0
    assert nodes.num_lost(((A, 80),), found, 80, 1.0) >= 8
    assert store.num_lost == 80 - store.num_used


def test_what_is_read_when_it_is_lost_leaves_when_the_load_ends() -> None:
    store, nodes = make(num_nodes=1)
    put(store, A, 8)
    store.pin(((A, 8),), (0, 8))
    nodes.happens(Outage(1.0, 0, "lost", 0))
    store.check()
    assert (store.match(((A, 8),), 0, 8), store.num_used) == (0, 8)
    store.unpin(((A, 8),), (0, 8))
    store.check()
    assert (store.num_used, store.num_lost) == (0, 8)


def test_what_is_lost_on_its_way_in_never_arrives() -> None:
    store, nodes = make(num_nodes=1)
    spans, _ = store.insert(((A, 8),), (0, 8), store.use(0.0))
    nodes.happens(Outage(1.0, 0, "lost", 0))
    store.complete(((A, 8),), spans)
    store.check()
    assert (store.match(((A, 8),), 0, 8), store.num_lost) == (0, 8)


def test_what_is_used_most_is_copied_first() -> None:
    store, nodes = make(num_nodes=3, replication=2)
    for key, num_uses in ((A, 1), (B, 3)):
        put(store, key, 8)
        for _ in range(num_uses):
            store.touch(((key, 8),), 8, store.use(0.0))
    for node in (0, 1):
        nodes.happens(Outage(1.0, 0, "lost", node))
        nodes.happens(Outage(1.0, 0, "back", node))
    wanted = []
    while (job := nodes.next_copy()) is not None:
        wanted.append(job.chain[0][0])
        nodes.copied(job)
        store.check()
    there = {run.key for run in store.tree.stored()}
    assert list(dict.fromkeys(wanted)) == [key for key in (B, A) if key in there and key in wanted]
    assert wanted[0] == B
    assert all(run.copies.bit_count() == 2 for run in store.tree.stored())


def test_an_index_names_what_has_gone_for_a_while_and_what_was_lost_is_known_longer() -> None:
    gone = GoneIndex(2.0)
    gone.note(((A, 10),), (4, 8), 1.0, is_lost=False)
    gone.note(((A, 10),), (8, 10), 1.5, is_lost=True)
    assert gone.match(((A, 10),), 4, 10, NAMED, 2.9) == 6
    assert gone.match(((A, 10),), 4, 10, NAMED, 3.1) == 0
    assert gone.match(((A, 10),), 8, 10, NAMED, 3.1) == 2
    assert gone.match(((A, 10),), 8, 10, LOST, 9.0) == 2
    gone.forget(((A, 10),), (8, 10))
    assert gone.match(((A, 10),), 8, 10, LOST, 9.0) == 0


def test_outages_come_in_order_of_time() -> None:
    spec = StoreSpec.model_validate(
        {
            "losses": [{"node": 1, "at_s": 5, "back_after_s": 2}],
            "partitions": [{"nodes": [0, 2], "at_s": 4, "for_s": 2}],
        }
    )
    found = [(due.at, due.kind, due.node) for due in outages(spec, np.random.default_rng(0))]
    cuts, ends = [(4.0, "cut", 0), (4.0, "cut", 2)], [(6.0, "healed", 0), (6.0, "healed", 2)]
    assert found == [*cuts, (5.0, "lost", 1), *ends, (7.0, "back", 1)]


def test_nodes_live_as_long_as_their_mtbf_says() -> None:
    # Lives of 100 s and repairs of 25 s: a share of 0.8 of the time is up, 1000 lives give it within 5 %.
    spec = StoreSpec(num_nodes=1, mtbf_s=100.0, repair_s=25.0)
    drawn = list(islice(outages(spec, np.random.default_rng(0)), 2000))
    assert [due.kind for due in drawn[:4]] == ["lost", "back", "lost", "back"]
    down_s = 1000 * 25.0
    assert 1 - down_s / drawn[-1].at == pytest.approx(0.8, rel=0.05)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({"num_nodes": 2, "replication": 3}, "replication 3 needs as many nodes"),
        ({"num_nodes": 2, "losses": [{"node": 2, "at_s": 1}]}, "node 2 is none of the store's 2"),
        ({"version_changes": [-1.0]}, "instants from 0 on"),
    ],
)
def test_a_store_that_cannot_be_is_refused(store: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StoreSpec.model_validate(store)


def test_only_tiers_that_are_shared_are_stores() -> None:
    with pytest.raises(ValidationError, match="set sharing: node or global"):
        TierSpec.model_validate({"tier": "dram", "capacity_gib": 1, "store": {}})
    assert TierSpec.model_validate({"tier": "dram", "capacity_gib": 1, "sharing": "node", "store": {}}).store
