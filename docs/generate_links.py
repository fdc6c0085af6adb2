"""Writes the tables of docs/links.md from the shipped profile and its samples; a test compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simllm.calibrate.links_samples import LinkSample, read_link_samples
from simllm.hwmodels.link_profile import LinkEntry, wire_factor
from simllm.hwmodels.profile import load_profile
from simllm.units import KIB, MIB

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "links.md"
PROFILE = "h200-sxm"
SAMPLES = DOCS.parent / "hwmodels" / "profiles" / f"{PROFILE}.links.samples.parquet"
BEGIN, END = "<!-- figures: docs/generate_links.py -->", "<!-- end of figures -->"

ALL_REDUCES = ("one_shot", "two_shot", "torch_one_shot", "torch_two_shot", "nccl")
SIZES = (8 * KIB, 64 * KIB, 256 * KIB, 512 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB, 64 * MIB, 256 * MIB)
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv")
ROWS = (1, 8, 16, 64, 256, 2048)
COPIES = (
    "host_to_device", "device_to_host", "host_both_ways", "peer_copy", "peer_both_ways",
)  # fmt: skip


def figures() -> str:
    """Returns all tables of the page."""
    samples, host = read_link_samples(SAMPLES)
    usable = [sample for sample in samples if sample.is_usable]
    counts = sorted({sample.point.num_gpus for sample in usable if not sample.point.is_copy})
    told = ", ".join(f"{name} {host[name]}" for name in ("torch", "nccl") if name in host)
    parts = [
        f"{host['name']}, {host['num_gpus']} of one host ({host['gpu_links']}), {host['date']}, {told}; "
        f"{len(usable)} points, of them {sum(sample.is_noisy for sample in usable)} noisy."
    ]
    for count in counts:
        parts += [f"All-reduce between {count} GPUs in a CUDA graph, us:", _all_reduces(usable, count)]
    parts += ["What an all-reduce adds to the product before it, us:", _after_gemm(usable, counts)]
    parts += ["Bus bandwidth of 256 MiB through NCCL, GB/s per GPU and direction:", _bandwidths(usable)]
    parts += ["Copies of 256 MiB, GB/s per GPU and direction:", _copies(usable)]
    parts += ["The fits, on sizes that they did not see:", _fits(load_profile(PROFILE).links)]
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / MIB:g} MiB" if num_bytes >= MIB else f"{num_bytes / KIB:g} KiB"


def _all_reduces(samples: Sequence[LinkSample], num_gpus: int) -> str:
    graph = [s for s in samples if s.point.mode == "graph" and s.point.collective == "all_reduce"]
    here = {(s.point.implementation, s.point.num_bytes): s for s in graph if s.point.num_gpus == num_gpus}
    rows = []
    for size in SIZES:
        times = [here[name, size].time_us if (name, size) in here else None for name in ALL_REDUCES]
        rows.append([_size(size), *("" if time_us is None else f"{time_us:.1f}" for time_us in times)])
    return _table(["bytes", *(f"`{name}`" for name in ALL_REDUCES)], rows)


def _after_gemm(samples: Sequence[LinkSample], counts: Sequence[int]) -> str:
    found = {
        (s.point.implementation, s.point.num_gpus, s.point.num_rows, s.point.num_bytes): s
        for s in samples
        if s.point.mode == "after_gemm"
    }
    columns = [(name, count) for count in counts for name in ("one_shot", "two_shot", "nccl")]
    rows = []
    for num_rows in ROWS:
        for hidden in (4096, 5120):
            keys = [(name, count, num_rows, num_rows * hidden * 2) for name, count in columns]
            times = [f"{found[key].time_us:.1f}" if key in found else "" for key in keys]
            rows.append([str(num_rows), str(hidden), *times])
    return _table(["rows", "hidden", *(f"`{name}` {count}" for name, count in columns)], rows)


def _bandwidths(samples: Sequence[LinkSample]) -> str:
    large = [s for s in samples if s.point.num_bytes == SIZES[-1] and s.point.implementation == "nccl"]
    graph = {(s.point.collective, s.point.num_gpus): s for s in large if s.point.mode == "graph"}
    counts = sorted({count for _, count in graph})
    rows = [
        [f"`{name}`", *(_rate(graph[name, count]) if (name, count) in graph else "" for count in counts)]
        for name in COLLECTIVES
    ]
    return _table(["collective", *(f"{count} GPUs" for count in counts)], rows)


def _rate(sample: LinkSample) -> str:
    """Returns what each GPU sends over its links [GB/s]."""
    point = sample.point
    sent = wire_factor(point.collective, point.implementation, point.num_gpus) * point.num_bytes
    return f"{sent / sample.time_us / 1e3:.0f}"


def _copies(samples: Sequence[LinkSample]) -> str:
    found = {
        (s.point.collective, s.point.implementation, s.point.num_gpus): s
        for s in samples
        if s.point.is_copy and s.point.num_bytes == SIZES[-1]
    }
    rows = [
        [f"`{name}`", f"`{implementation}`", str(count), _rate(found[name, implementation, count])]
        for name, implementation, count in sorted(found, key=lambda key: (COPIES.index(key[0]), key[1:]))
    ]
    return _table(["copy", "memory", "GPUs at once", "GB/s"], rows)


def _fits(entries: Sequence[LinkEntry]) -> str:
    rows = [
        [
            f"`{entry.collective}`", f"`{entry.implementation}`", entry.mode, str(entry.num_gpus),
            f"{entry.latency_s.value * 1e6:.1f} us", str(len(entry.regimes)),
            *(f"{error:.1%}" for error in (entry.held_out.median, entry.held_out.p90, entry.held_out.worst)),
            "" if entry.held_out.fewer_gpus is None else f"{entry.held_out.fewer_gpus:.0%}",
        ]
        for entry in entries
    ]  # fmt: skip
    head = ("collective", "implementation", "mode", "GPUs", "first byte", "regimes", "median", "p90", "worst")
    return _table([*head, "from fewer GPUs"], rows)


def page(text: str) -> str:
    """Returns the page with its figures made anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{figures()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
