"""Writes the table of docs/kv-tiers.md on a store that loses nodes; a test compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simllm.sim.run import simulate
from simllm.sim.scenario import load_scenario

PAGE = Path(__file__).resolve().parent / "kv-tiers.md"
BEGIN = "<!-- figures of 20-store-loss: docs/generate_store_loss.py -->"
END = "<!-- end of figures of 20-store-loss -->"

STORE = "pools.0.kv.tiers.0.store."
NOTHING_FAILS = [f"{STORE}{what}=[]" for what in ("losses", "partitions")] + [f"{STORE}checksum_failures=0"]
VARIANTS = {
    "nothing fails": NOTHING_FAILS,
    "as shipped: two copies, rebuilt": [],
    "two copies, not rebuilt": [f"{STORE}rebuild=recompute"],
    "two copies, rebuilt ten times as fast": [f"{STORE}rebuild_gb_per_s=20"],
    "one copy": [f"{STORE}replication=1"],
}
HEAD = (
    "store",
    "hit rate",
    "mean TTFT, ms",
    "p99 TTFT, ms",
    "lost blocks",
    "rebuilt, GB",
    "tokens computed again",
)


def row(name: str, overrides: Sequence[str]) -> str:
    """Returns one variant's line of the table."""
    scenario, folder = load_scenario("20-store-loss", overrides)
    summary = simulate(scenario, base_dir=folder).summary()
    store = summary["kv_tiers"][0]["store"]
    cells = (
        name,
        f"{summary['prefix_cache_hit_rate']:.1%}",
        f"{summary['mean_ttft_ms']:.0f}",
        f"{summary['p99_ttft_ms']:.0f}",
        f"{store['lost_blocks']:,}",
        f"{store['rebuilt_bytes'] / 1e9:.0f}",
        f"{sum(store['recomputed_tokens'].values()):,}",
    )
    return f"| {' | '.join(cells)} |"


def page(text: str) -> str:
    """Returns the page with its figures made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    head = [f"| {' | '.join(HEAD)} |", f"| {' | '.join(['---'] * len(HEAD))} |"]
    table = "\n".join([*head, *(row(name, overrides) for name, overrides in VARIANTS.items())])
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
