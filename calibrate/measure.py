"""Measures a plan on this machine's GPU, with a progress bar, and says what was left out at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from ..errors import CalibrationError
from ..hwmodels.op_point import OpPoint
from .budget import shortfall_line
from .progress import SweepBar
from .samples import read_samples
from .sweep import Sweep, sweep

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells count


def measure_points(
    points: Sequence[OpPoint], path: Path, *, host: Mapping[str, str], budget_s: float
) -> None:
    """Appends what `path` does not hold yet; whatever ends it, what was measured is in the file.

    Raises: CalibrationError, one line, if `path` holds another GPU's samples; typer.Exit after Ctrl-C.
    """
    check_same_gpu(path, host["name"])
    from .gpu import GpuMeasurer

    try:
        with SweepBar(budget_s) as bar:
            result = sweep(points, path, GpuMeasurer(), host=host, budget_s=budget_s, report=bar.update)
    except KeyboardInterrupt:
        typer.echo(
            f"stopped; what was measured is in {path}, and the same command goes on from there", err=True
        )
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    typer.echo(describe_sweep(result, path), err=True)


def check_same_gpu(path: Path, gpu: str) -> None:
    """Raises: CalibrationError if `path` already holds samples of another GPU."""
    if not path.exists():
        return
    measured = read_samples(path)[1].get("name", gpu)
    if measured != gpu:
        raise CalibrationError(
            f"{path}: holds samples of {measured!r}, and this is {gpu!r}; choose another file"
        )


def describe_sweep(result: Sweep, path: Path) -> str:
    """Returns what was measured, what failed or was noisy, and what a spent budget costs."""
    parts = [f"{path}: {result.num_done} of {result.num_points} points, {result.num_new} of them new"]
    if result.num_noisy:
        parts.append(f"{result.num_noisy} noisy")
    if result.num_failed:
        parts.append(f"{result.num_failed} refused by their kernels")
    line = ", ".join(parts)
    if result.num_done < result.num_points:
        line += f"\nbudget spent: {shortfall_line(result.num_done / result.num_points)}"
    return line
