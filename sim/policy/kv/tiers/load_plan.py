"""What of a prompt can be loaded, from where, and whether that is better than computing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..blocks import PrefixHit
from ..runs import BlockRuns
from .spec import Load
from .store import Span
from .tier import Tier

if TYPE_CHECKING:
    from .failures import Failure


class Part(NamedTuple):
    """Blocks of a chain that one tier has; `tier` counts from the fastest."""

    tier: int
    span: Span

    @property
    def num_blocks(self) -> int:
        """Blocks of the part."""
        return self.span[1] - self.span[0]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Parts to load behind what HBM has (`hbm_hit`).

    load: None to wait, for a prefetch or for another request that loads the same. failure: what of it fails.
    """

    hbm_hit: PrefixHit
    runs: BlockRuns
    parts: Sequence[Part]
    load: Load | None
    failure: Failure | None = None

    @property
    def end(self) -> int:
        """Blocks of the chain that are in HBM once all has been loaded."""
        return self.parts[-1].span[1] if self.parts else self.hbm_hit.num_blocks

    @property
    def is_waiting(self) -> bool:
        """Whether the request is to be set aside until a move has ended."""
        return self.load is None or self.load == "async"


@dataclass(frozen=True, slots=True)
class LoadCost:
    """Estimates that a load-or-recompute decision compares.

    prefill_s(num_tokens, context): computing tokens behind a context, alone [s]. load_s(tier, num_bytes):
    loading into HBM over idle links [s].
    """

    prefill_s: Callable[[int, int], float]
    load_s: Callable[[str, float], float]


def find_parts(tiers: Sequence[Tier], runs: BlockRuns, start: int, limit: int) -> list[Part]:
    """Returns what tiers have of a chain from block `start` on, without a gap, each part from the fastest."""
    parts: list[Part] = []
    position = start
    while position < limit:
        for number, tier in enumerate(tiers):
            num_blocks = tier.store.match(runs, position, limit)
            if num_blocks:
                parts.append(Part(number, (position, position + num_blocks)))
                position += num_blocks
                break
        else:
            break
    return parts


def cheaper_parts(
    parts: Sequence[Part], tiers: Sequence[Tier], cost: LoadCost, *, block_size: int, block_bytes: float
) -> Sequence[Part]:
    """Returns the leading parts whose loading saves the most time over computing them, perhaps none."""
    saved_s, best_s, best = 0.0, 0.0, 0
    for count, part in enumerate(parts, start=1):
        first, num_tokens = part.span[0] * block_size, part.num_blocks * block_size
        load_s = cost.load_s(tiers[part.tier].name, part.num_blocks * block_bytes)
        saved_s += cost.prefill_s(num_tokens, first) - load_s
        if saved_s > best_s:
            best_s, best = saved_s, count
    return parts[:best]


def note_look_up(tiers: Sequence[Tier], plan: LoadPlan, limit: int) -> None:
    """Tells the tiers what was found in them of a request that is admitted, and what was not."""
    position = plan.hbm_hit.num_blocks
    for part in plan.parts:
        tiers[part.tier].note_hit(part.num_blocks)
        position = part.span[1]
    if position < limit:
        for tier in tiers:
            tier.note_miss(key_at(plan.runs, position), limit - position)


def key_at(runs: BlockRuns, position: int) -> object:
    """Returns the key of a chain's block, None behind its end."""
    for key, num_blocks in runs:
        if position < num_blocks:
            return key
        position -= num_blocks
    return None
