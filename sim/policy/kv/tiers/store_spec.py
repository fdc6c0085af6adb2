"""The settings of a tier that is a store of several nodes: `store` of a tier."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ....spec import Spec

StoreWrite = Literal["synchronous", "quorum", "asynchronous"]


class NodeLossSpec(Spec):
    """A node of the store is lost with all that it keeps."""

    node: int = Field(ge=0, description="Number of the node, from 0.")
    at_s: float = Field(ge=0)
    back_after_s: float | None = Field(None, gt=0, description="It comes back empty; by default never.")


class PartitionSpec(Spec):
    """The network cuts nodes of the store off; what they keep is there again afterwards."""

    nodes: tuple[int, ...] = Field(min_length=1, description="Numbers of the nodes, from 0.")
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)


class StoreSpec(Spec):
    """Nodes, copies and failures of a tier that is a store."""

    num_nodes: int = Field(4, ge=1, le=64, description="They share its capacity equally.")
    replication: int = Field(1, ge=1, description="Nodes that keep a copy of each block.")
    write: StoreWrite = Field(
        "synchronous",
        description="When what is written can be read: with all copies there (synchronous), the greater half "
        "(quorum), or the first (asynchronous). The writer sends these, the store's nodes make the others.",
    )
    stripe_blocks: int = Field(64, ge=1, description="Blocks of a prompt side by side on the same nodes.")
    index_delay_s: float = Field(
        0.0, ge=0, description="How long look-ups don't see what came in, and still see what is gone."
    )
    timeout_s: float = Field(0.01, ge=0, description="What a load of blocks that are gone takes to fail.")
    checksum_failures: float = Field(0.0, ge=0, lt=1, description="Share of loaded blocks that are corrupt.")
    losses: tuple[NodeLossSpec, ...] = ()
    partitions: tuple[PartitionSpec, ...] = ()
    mtbf_s: float | None = Field(None, gt=0, description="Mean time to a node's loss; by default none.")
    repair_s: float = Field(600.0, gt=0, description="Then it is back, empty, after so long.")
    rebuild: Literal["replicas", "recompute"] = Field(
        "replicas",
        description="Copies that are lost are made anew from those left, what is used most first; or only "
        "what requests compute again is stored again.",
    )
    rebuild_gb_per_s: float = Field(
        21.75, gt=0, description="Between nodes of the store, for copies of its own [1e9 B/s]."
    )
    version_changes: tuple[float, ...] = Field(
        (), description="When weights or engine change [s]: nothing computed before can be used any more."
    )

    @model_validator(mode="after")
    def _check_nodes(self) -> StoreSpec:
        if self.replication > self.num_nodes:
            raise ValueError(
                f"replication {self.replication} needs as many nodes (num_nodes {self.num_nodes})"
            )
        named = [loss.node for loss in self.losses] + [n for cut in self.partitions for n in cut.nodes]
        if named and max(named) >= self.num_nodes:
            raise ValueError(f"node {max(named)} is none of the store's {self.num_nodes}, which count from 0")
        if any(at < 0 for at in self.version_changes):
            raise ValueError("version_changes are instants from 0 on")
        return self

    @property
    def num_acks(self) -> int:
        """Copies that must be there before a block can be read."""
        return {"synchronous": self.replication, "quorum": self.replication // 2 + 1, "asynchronous": 1}[
            self.write
        ]
