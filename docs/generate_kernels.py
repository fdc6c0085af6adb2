"""Writes the measured tables into docs/kernels.md, from what the two benchmarks printed on a GPU.

    python -m simllm.benchmarks.kernels > benchmarks/kernels-h200.txt
    python -m simllm.benchmarks.layers > benchmarks/layers-h200.txt
    python docs/generate_kernels.py

A test compares the document with the two files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "kernels.md"
KERNELS = ROOT / "benchmarks" / "kernels-h200.txt"
LAYERS = ROOT / "benchmarks" / "layers-h200.txt"
NAME_END, SHAPE_END = 26, 57  # columns of a row of the kernel table


class Measured(NamedTuple):
    """One row of the kernel table; ratio is None where it has no other side."""

    ours_us: float
    ratio: float | None
    tflops_per_s: float
    tb_per_s: float
    shape: str


def measured(text: str) -> dict[str, list[Measured]]:
    """Returns the rows of the kernel table by kernel."""
    rows: dict[str, list[Measured]] = {}
    for line in text.splitlines():
        cells = line[SHAPE_END:].split()
        if len(cells) != 11 or not cells[0].replace(".", "").isdigit():
            continue
        ratio = None if cells[2] == "-" else float(cells[2])
        shape = line[NAME_END:SHAPE_END].strip()
        row = Measured(float(cells[0]), ratio, float(cells[3]), float(cells[4]), shape)
        rows.setdefault(line[:NAME_END].strip(), []).append(row)
    return rows


def goal_lines(text: str) -> Iterator[str]:
    """Yields the table of goals: what is compared, the goal, what was reached."""
    rows = measured(text)

    def ratios(name: str, *shapes: str) -> str:
        found = [row for row in rows[name] if not shapes or row.shape in shapes]
        return ", ".join(f"{row.ratio:.2f}" for row in found)

    def of_copy(*names: str) -> str:
        return ", ".join(f"{rows[name][0].tb_per_s / copy_rate(text):.2f}" for name in names)

    def of_contiguous(name: str) -> str:
        return f"{rows[name][0].ours_us / rows['prefill contiguous'][0].ours_us:.2f}"

    latent = rows["mla decode bf16 block 64"][0].tflops_per_s / cublas_rate(rows)
    best = "torch's best attention"
    cubes = "4096x4096x4096", "8192x8192x8192"
    table = [
        ("bf16 product, 4096 and 8192 cubed", "cuBLAS", "0.95", ratios("gemm bf16", *cubes)),
        ("int8 product, the same", "torch's bf16 product", "2", ratios("gemm int8 vs bf16")),
        ("fp8 product, fast accumulation", "torch's bf16 product", "1.7", ratios("gemm fp8 vs bf16")),
        ("causal prefill, 8 k, 32/8 heads of 128", best, "0.85", ratios("prefill contiguous")),
        ("its time in pages of 64", "contiguous", "1.15 at most", of_contiguous("prefill block 64")),
        ("its time in pages of 16", "contiguous", "1.15 at most", of_contiguous("prefill block 16")),
        ("decode, 1 GiB of bf16 KV, blocks of 64", "copy", "0.92", of_copy("decode bf16 block 64")),
        ("the same in blocks of 16", "copy", "0.92", of_copy("decode bf16 block 16")),
        ("latent decode, 128 heads", "cuBLAS at 8192 cubed", "0.7", f"{latent:.2f}"),
        ("RMSNorm, LayerNorm, 256 MiB", "copy", "0.9", of_copy("rms_norm", "layer_norm")),
        ("softmax, transpose, 256 MiB", "copy", "0.9", of_copy("softmax", "transpose")),
        ("convolutions, as listed below", "cuDNN", "1", ratios("conv2d bf16")),
    ]
    yield "| kernel | against | goal | reached |"
    yield "|---|---|---|---|"
    yield from (f"| {' | '.join(cells)} |" for cells in table)


def copy_rate(text: str) -> float:
    """Returns the measured rate of our copy [TB/s], bytes read and written."""
    found = re.search(r"hbm_copy_per_s +([\d.]+)", text)
    assert found is not None, "the benchmark prints the ladder of bandwidths"
    return float(found[1])


def cublas_rate(rows: dict[str, list[Measured]]) -> float:
    """Returns the measured rate of cuBLAS' bf16 product at 8192 cubed [TFLOP/s]."""
    (cube,) = (row for row in rows["gemm bf16"] if row.shape == "8192x8192x8192")
    assert cube.ratio is not None, "cuBLAS ran beside"
    return cube.tflops_per_s / cube.ratio


def filled(document: str, kernels: str, layers: str) -> str:
    """Returns the document with its goals and tables replaced by those of the two texts."""
    parts = {
        "goals": "\n".join(goal_lines(kernels)),
        "kernels": f"```text\n{kernels.rstrip()}\n```",
        "layers": f"```text\n{layers.rstrip()}\n```",
    }
    for name, text in parts.items():
        before, start, rest = document.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        document = "".join((before, start, f"{text}\n", end, after))
    return document


def current() -> str:
    """Returns the document as the files beside the benchmarks say."""
    texts = (path.read_text(encoding="utf-8") for path in (DOCUMENT, KERNELS, LAYERS))
    return filled(*texts)


if __name__ == "__main__":
    DOCUMENT.write_text(current(), encoding="utf-8")
