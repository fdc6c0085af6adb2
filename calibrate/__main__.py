"""The command line of calibration: `python -m simllm.calibrate sweep | fit | errors`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ..errors import USER_ERROR_EXIT_CODE, SimllmError
from ..hwmodels.device import load_device
from .fit import Key, OpFit
from .fitted_file import fit_all, fitted_text
from .host import describe_host
from .plan import make_plan
from .samples import read_samples
from .sweep import Progress, sweep
from .validate import HeldOut

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure a GPU and fit its models.")

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Returns seconds of `90s`, `10m`, `1h` or a bare number of seconds."""
    unit = _SECONDS.get(text[-1:])
    try:
        return float(text if unit is None else text[:-1]) * (unit or 1.0)
    except ValueError:
        raise typer.BadParameter(f"expected seconds, or 90s, 10m, 1h; got {text!r}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _show(progress: Progress) -> None:
    if progress.num_done % 100 and not progress.last.error:
        return
    point, sample = progress.last.point, progress.last
    what = sample.error or f"{sample.time_us:.2f} us, spread {sample.spread:.1%}"
    place = f"{progress.num_done}/{progress.num_points} {progress.elapsed_s:.0f}s"
    print(f"{place} {point.op} {point.implementation} {point.dtype}: {what}", file=sys.stderr, flush=True)


@app.command("sweep")
def sweep_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Parquet file of samples; resumes if it exists.")
    ],
    budget: Annotated[str, typer.Option(help="How long to measure: 90s, 10m, 1h.")] = "10m",
    ops: Annotated[str, typer.Option(help="Only these ops, by comma.")] = "",
    implementations: Annotated[str, typer.Option(help="Only these implementations, by comma.")] = "",
) -> None:
    """Measure this machine's GPU, most informative points first."""
    points = make_plan(_names(ops), _names(implementations))
    budget_s = parse_duration(budget)
    host = describe_host()
    from .gpu import GpuMeasurer

    num_new = sweep(points, output, GpuMeasurer(), host=host, budget_s=budget_s, report=_show)
    print(f"{num_new} points measured, in {output}")


@app.command("fit")
def fit_command(
    samples: Annotated[Path, typer.Argument(help="Parquet file that a sweep made.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Fitted file to write (YAML).")],
    device: Annotated[str, typer.Option(help="Name or file of the device that was measured.")] = "h200-sxm",
    name: Annotated[str, typer.Option(help="Name of the profile; the device's if empty.")] = "",
) -> None:
    """Fit the models to samples and print their errors on shapes that were left out. Needs no GPU."""
    spec = load_device(device)
    rows, host = read_samples(samples)
    print(_FIT_HEADER)
    entries = fit_all(rows, spec, report=_show_fit, skip=_show_skipped)
    output.write_text(fitted_text(name or spec.name, spec, host, entries), encoding="utf-8")


_FIT_HEADER = (
    f"{'op':18} {'implementation':14} {'dtype':5} {'samples':>7} {'median':>7} {'p90':>7} {'worst':>7}"
    "  left out"
)


def _show_fit(key: Key, fit: OpFit, errors: HeldOut) -> None:
    shown = f"{errors.median:7.1%} {errors.p90:7.1%} {errors.worst:7.1%}  {errors.grouped_by}"
    print(f"{key[0]:18} {key[1]:14} {key[2]:5} {errors.num_samples:7d} {shown}")


def _show_skipped(key: Key, error: SimllmError) -> None:
    print(f"not fitted: {error}", file=sys.stderr)


@app.command("plan")
def plan_command() -> None:
    """Show what a sweep measures: points by op, implementation and dtype."""
    counts = Counter((point.op, point.implementation, point.dtype) for point in make_plan())
    for names, count in sorted(counts.items()):
        print(f"{count:5d}  {' '.join(names)}")


def main() -> None:
    """Runs the command line; a user's error is one line and exit code 2."""
    try:
        app()
    except SimllmError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR_EXIT_CODE) from None


if __name__ == "__main__":
    main()
