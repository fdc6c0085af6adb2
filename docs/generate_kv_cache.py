"""Writes the table of docs/kv-cache.md from the Mooncake trace below ${SIMLLM_TRACES}."""

from __future__ import annotations

from pathlib import Path

from simllm.sim.run import simulate
from simllm.sim.scenario import load_scenario

PAGE = Path(__file__).resolve().parent / "kv-cache.md"
BEGIN, END = "<!-- figures: docs/generate_kv_cache.py -->", "<!-- end of figures -->"
KINDS = ("hash", "radix", "trtllm", "ksana")
NUM_BLOCKS = (60_000, 120_000, 240_000, 1_000_000)


def row(num_blocks: int) -> str:
    """Returns the hit rates of all caches of so many blocks, as a row of the table."""
    rates = (f"{_hit_rate(num_blocks, kind):.1%}" for kind in KINDS)
    return f"| {num_blocks * 16 / 1e6:.2f} | {' | '.join(rates)} |"


def _hit_rate(num_blocks: int, kind: str) -> float:
    settings = {
        "replicas": "1",
        "parallel.tp": "4",
        "kv.num_gpu_blocks": str(num_blocks),
        "kv.prefix_cache.kind": kind,
    }
    overrides = [f"pools.0.{path}={value}" for path, value in settings.items()]
    scenario, folder = load_scenario("07-replay-mooncake", overrides)
    return float(simulate(scenario, base_dir=folder).summary()["prefix_cache_hit_rate"])


def main() -> None:
    """Writes the page with its figures made anew."""
    head = f"| million tokens | {' | '.join(f'`{kind}`' for kind in KINDS)} |"
    table = "\n".join((head, "|---" * (len(KINDS) + 1) + "|", *map(row, NUM_BLOCKS)))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
