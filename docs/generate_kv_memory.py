"""Writes the tables of docs/kv-memory.md and docs/compression.md from simulated runs; a test compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simllm.sim.policy.beams import BeamModel
from simllm.sim.policy.kv.shared import SharedBlocks
from simllm.sim.run import simulate
from simllm.sim.scenario import load_scenario
from simllm.sim.workload.streams import stream

DOCS = Path(__file__).resolve().parent
END = "<!-- end of figures -->"

# Shares of the KV cache that hold token states.
# Source: PagedAttention (arXiv 2309.06180) figure 2.
PUBLISHED_USEFUL = {"max": "20.4 %", "pow2": "26.8 %", "oracle": "38.2 %", "paged": "96.3 %"}
# Memory saved by sharing on Alpaca's lengths, by sequences per request. Source: the same, figure 15.
PUBLISHED_SAVED = {2: ("6.1 %", "37.6 %"), 4: ("8.5 %", "53.1 %"), 6: ("9.8 %", "55.2 %")}
# Alpaca's mean lengths. Source: the same, section 6.1.
ALPACA_PROMPT, ALPACA_OUTPUT, NUM_GROUPS = 19.31, 58.45, 100
BLOCK_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

COMPRESSED = {
    "bf16": (),
    "KV fp8": ("kv.dtype=fp8",),
    "KV int8, per group of 64": ("kv.dtype=int8", "kv.scales={kind: per_group, group_size: 64}"),
    "KV int4, per channel, 32 tokens": ("kv.dtype=int4", "kv.scales={kind: per_channel, group_size: 32}"),
    "KV int4, per group of 32": ("kv.dtype=int4", "kv.scales={kind: per_group, group_size: 32}"),
    "H2O, 20 %": ("kv.sparsity={kind: h2o, keep_share: 0.2}",),
    "sliding window, 4,096": ("kv.sparsity={kind: sliding_window, window_tokens: 4096}",),
    "4 sinks and 4,096": ("kv.sparsity={kind: attention_sinks, sink_tokens: 4, window_tokens: 4096}",),
    "weights fp8": ("weight_dtype=fp8",),
    "weights int4 (AWQ, GPTQ)": ("weight_dtype=int4",),
    "weights int4, KV int4 per channel": (
        "weight_dtype=int4",
        "kv.dtype=int4",
        "kv.scales={kind: per_channel, group_size: 32}",
    ),
}


def run(scenario: str, settings: Sequence[str]) -> dict[str, Any]:
    """Returns the summary of a shipped scenario with some settings of its pool changed."""
    changed, folder = load_scenario(scenario, [f"pools.0.{setting}" for setting in settings])
    return simulate(changed, base_dir=folder).summary()


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def waste() -> str:
    """Returns what becomes of the KV cache under each way to reserve it."""
    head = (
        "reserved",
        "useful",
        "published",
        "reserved, filled later",
        "never filled",
        "no hole fits",
        "output tok/s",
    )

    def rows() -> Iterator[Sequence[str]]:
        for name, published in PUBLISHED_USEFUL.items():
            layout = "kv.layout={kind: paged}" if name == "paged" else f"kv.layout.reserve={name}"
            summary = run("10-kv-waste", (layout,))
            kinds = ("useful", "reserved", "internal", "external")
            useful, *others = (f"{summary['kv_waste'][f'{kind}_share']:.1%}" for kind in kinds)
            yield (f"`{name}`", useful, published, *others, f"{summary['output_throughput']:,.0f}")

    return table(head, rows())


def block_sizes() -> str:
    """Returns what block sizes waste, and how long decodes take with them."""
    head = ("block size", "waste", "mean TPOT [ms]", "most running", "output tok/s")

    def rows() -> Iterator[Sequence[str]]:
        for size in BLOCK_SIZES:
            summary = run("11-block-size", (f"kv.block_size={size}",))
            yield (
                f"{size}",
                f"{summary['kv_waste']['waste_share']:.1%}",
                f"{summary['mean_tpot_ms']:.1f}",
                f"{summary['replicas'][0]['max_running']}",
                f"{summary['output_throughput']:,.0f}",
            )

    return table(head, rows())


def sharing() -> str:
    """Returns the memory that samples and beams save by sharing blocks of 16 tokens."""
    head = ("sequences", "samples", "published", "beams", "published")

    def rows() -> Iterator[Sequence[str]]:
        for width, (samples, beams) in PUBLISHED_SAVED.items():
            yield (f"{width}", f"{saved(width, False):.1%}", samples, f"{saved(width, True):.1%}", beams)

    return table(head, rows())


def saved(width: int, has_beams: bool) -> float:
    """Returns the blocks saved, over those without sharing, mean over all steps of all requests."""
    rng = stream(0, "sharing")
    unshared = held = 0
    for prompt, output in zip(_lengths(rng, ALPACA_PROMPT), _lengths(rng, ALPACA_OUTPUT), strict=True):
        blocks, beams = SharedBlocks(16), BeamModel(width, rng)
        sequences = [blocks.start(prompt)]
        sequences += [blocks.fork(sequences[0]) for _ in range(width - 1)]
        for _ in range(output):
            if has_beams:
                sequences = blocks.survive(sequences, beams.parents())
            for sequence in sequences:
                blocks.append(sequence)
            unshared, held = unshared + blocks.num_unshared_blocks, held + blocks.num_blocks
    return 1 - held / unshared


def _lengths(rng: np.random.Generator, mean: float) -> list[int]:
    """Returns lognormal lengths with a standard deviation of 0.8 means."""
    variance = np.log(1 + 0.8**2)
    drawn = rng.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), NUM_GROUPS)
    return [max(1, round(length)) for length in drawn]


def compression() -> str:
    """Returns what each compression does to capacity and speed."""
    head = ("what", "KV tokens that fit", "mean TPOT [ms]", "output tok/s")

    def rows() -> Iterator[Sequence[str]]:
        for name, settings in COMPRESSED.items():
            summary = run("04-long-reasoning", settings)
            kv = summary["kv"][0]
            yield (
                name,
                f"{kv['num_blocks'] * kv['block_size']:,}",
                f"{summary['mean_tpot_ms']:.1f}",
                f"{summary['output_throughput']:,.0f}",
            )

    return table(head, rows())


# What stands between the marks of each page.
FIGURES = {
    "kv-memory.md": {"waste": waste, "block sizes": block_sizes, "sharing": sharing},
    "compression.md": {"compression": compression},
}


def page(name: str, text: str) -> str:
    """Returns a page with its tables as they come out now."""
    for title, make in FIGURES[name].items():
        begin = f"<!-- {title}: docs/generate_kv_memory.py -->"
        before, rest = text.split(begin)
        _, after = rest.split(END, 1)
        text = f"{before}{begin}\n{make()}\n{END}{after}"
    return text


if __name__ == "__main__":
    for name in FIGURES:
        path = DOCS / name
        path.write_text(page(name, path.read_text(encoding="utf-8")), encoding="utf-8")
