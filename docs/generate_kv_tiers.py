"""Writes the tables of docs/kv-tiers.md by running the shipped scenario; a test compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simllm.sim.run import simulate
from simllm.sim.scenario import load_scenario

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "kv-tiers.md"
BEGIN, END = "<!-- figures: docs/generate_kv_tiers.py -->", "<!-- end of figures -->"

NO_TIERS = "pools.0.kv.tiers=[]"
HOST = "pools.0.kv.tiers=[{{tier: dram, capacity_gib: 128, eviction: {{kind: {}}}}}]"
POLICY = "pools.0.kv.tier_policy={}"
VARIANTS = {
    "HBM alone": [NO_TIERS],
    "host, 128 GiB per replica": [HOST.format("lru")],
    "the same, as vLLM offloads": [
        NO_TIERS,
        POLICY.format("{kind: vllm_offloading, kv_offloading_size_gib: 128}"),
    ],
    "the same, as HiCache": [NO_TIERS, POLICY.format("{kind: hicache, hicache_size_gb: 137.4}")],
    "host and a store of 1 TiB (as shipped)": [],
    "the same, loaded before the step": ["pools.0.kv.tier_policy.load=before"],
    "the same, requests wait, others go on": ["pools.0.kv.tier_policy.load=async"],
}
EVICTIONS = (
    "lru",
    "lfu",
    "fifo",
    "arc",
    "random",
    "ttl",
    "cost_aware",
    "position_aware",
    "turn_aware",
    "attention_importance",
)


def figures() -> str:
    """Returns all figures of the page."""
    tiers = [[name, *_cells(_summary(overrides))] for name, overrides in VARIANTS.items()]
    evictions = [[f"`{kind}`", *_cells(_summary([HOST.format(kind)]))] for kind in EVICTIONS]
    head = ["", "hit rate", "mean TTFT, ms", "p99 TTFT, ms", "mean TPOT, ms", "USD per hour"]
    text = "The host's 128 GiB alone, by what it evicts first:"
    return "\n\n".join(
        (_table(["tiers", *head[1:]], tiers), text, _table(["eviction", *head[1:]], evictions))
    )


def _summary(overrides: Sequence[str]) -> dict[str, Any]:
    scenario, folder = load_scenario("09-kv-tiers", overrides)
    return simulate(scenario, base_dir=folder).summary()


def _cells(summary: dict[str, Any]) -> list[str]:
    usd = sum(tier["usd"] for tier in summary["kv_tiers"]) * 3600 / summary["span_s"]
    times = (f"{summary[key]:.0f}" for key in ("mean_ttft_ms", "p99_ttft_ms"))
    return [
        f"{summary['prefix_cache_hit_rate']:.1%}",
        *times,
        f"{summary['mean_tpot_ms']:.1f}",
        f"{usd:.2f}" if usd else "-",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(text: str) -> str:
    """Returns the page with its figures made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{figures()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
