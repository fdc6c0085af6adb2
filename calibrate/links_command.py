"""`simllm calibrate links`: measures the links of this host and writes them into its profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import CalibrationError
from ..hwmodels.device import load_device
from ..hwmodels.link_profile import LinkEntry
from ..hwmodels.profile_file import checked, dump_profile, read_yaml
from .arguments import parse_duration, parse_names
from .files import check_writable, write_whole
from .fit_command import device_of
from .links_fit import fit_links
from .links_host import check_gpu_counts, describe_links_host
from .links_measure import LinkProgress, measure_links
from .links_plan import PEER_IMPLEMENTATIONS, LinkPoint, make_link_plan
from .links_samples import read_link_samples
from .measure import INTERRUPTED_EXIT_CODE

SAMPLES_SUFFIX = ".links.samples.parquet"
# What a profile's host says of its links, beside the GPU itself.
HOST_FIELDS = (
    "date", "num_gpus", "gpu_links", "nccl", "NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST",
)  # fmt: skip
GPU_FIELDS = ("name", "driver_version", "torch", "triton", "cuda")
_HEADER = (
    f"{'collective':15} {'implementation':15} {'mode':10} GPUs  {'first byte':>12} {'large':>12}"
    f" {'median':>7} {'p90':>7} {'worst':>7}"
)


def links_command(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Profile (YAML) whose links section is written."),
    ],
    gpus: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Numbers of GPUs, by comma; 2, 4, 8 as far as there are.")
    ] = "",
    budget: Annotated[str, typer.Option(metavar="TIME", help="How long to measure: 90s, 10m, 1h.")] = "10m",
    implementations: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these, by comma: nccl, one_shot, pinned, ...")
    ] = "",
    fit_only: Annotated[
        bool, typer.Option("--fit-only", help="Fit the samples that are there; needs no GPU.")
    ] = False,
) -> None:
    """Measure NVLink, PCIe and collectives between this host's GPUs, and fit them.

    Only the links section of the profile changes, and it is written whole or not at all. Samples lie beside
    the profile, in PROFILE.links.samples.parquet: the same command goes on where it stopped.
    """
    check_writable(output)
    samples = output.with_name(output.stem + SAMPLES_SUFFIX)
    base = existing_profile(output)
    if not fit_only:
        _measure(samples, parse_numbers(gpus), parse_names(implementations), parse_duration(budget))
    rows, host = read_link_samples(samples)
    entries = fit_links(rows)
    if not entries:
        raise CalibrationError(f"{samples}: no collective has samples enough to fit")
    write_whole(output, links_text(base or new_profile(output.stem, host), entries, host))
    typer.echo("\n".join([_HEADER, *map(entry_line, entries)]))


def _measure(path: Path, gpus: Sequence[int], implementations: Sequence[str], budget_s: float) -> None:
    make_link_plan((), implementations)  # refuses unknown names before any GPU is touched
    needs_peers = not implementations or any(name in PEER_IMPLEMENTATIONS for name in implementations)
    counts = check_gpu_counts(gpus, needs_peer_access=needs_peers)
    host, points = describe_links_host(), make_link_plan(counts, implementations)
    _check_same_gpu(path, host["name"])
    try:
        num_new = _measure_with_bar(points, path, host, budget_s)
    except KeyboardInterrupt:
        typer.echo(f"stopped; what was measured is in {path}, the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    typer.echo(f"{path}: {num_new} new points", err=True)


def _check_same_gpu(path: Path, gpu: str) -> None:
    """Raises: CalibrationError if `path` already holds samples of another GPU."""
    measured = read_link_samples(path)[1].get("name", gpu) if path.exists() else gpu
    if measured != gpu:
        raise CalibrationError(f"{path}: holds samples of {measured!r}, and this is {gpu!r}")


def _measure_with_bar(
    points: Sequence[LinkPoint], path: Path, host: Mapping[str, str], budget_s: float
) -> int:
    """Returns the number of new rows; shows on stderr how far it is and what could not be measured."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting the ranks", total=None)

        def show(progress: LinkProgress) -> None:
            told = _point_text(progress.last.point)
            bar.update(task, total=progress.num_points, completed=progress.num_done, description=told)
            if progress.last.error:
                console.print(f"{told}: {progress.last.error}", markup=False, highlight=False)

        return measure_links(points, path, host=host, budget_s=budget_s, report=show)


def _point_text(point: LinkPoint) -> str:
    return f"{point.collective} {point.implementation} {point.mode} {point.num_gpus} GPUs {point.num_bytes} B"


def existing_profile(path: Path) -> dict[str, Any] | None:
    """Returns the content of a profile, None if the file is not there yet.

    Raises: ProfileError, one line, if it is no profile.
    """
    if not path.exists():
        return None
    content: dict[str, Any] = read_yaml(path)
    checked(content, path)
    return content


def new_profile(name: str, host: Mapping[str, str]) -> dict[str, Any]:
    """Returns the head of a profile of the GPU that the samples come from."""
    device = load_device(device_of(host.get("name", ""))).name
    gpu = {field: host[field] for field in GPU_FIELDS if field in host}
    return {"schema_version": 1, "kind": "calibrated", "name": name, "device": device, "host": gpu}


def links_text(base: Mapping[str, Any], entries: Sequence[LinkEntry], host: Mapping[str, str]) -> str:
    """Returns the text of `base` with these links, and in its host where they were measured."""
    of_links = {f"links_{name}".lower(): host[name] for name in HOST_FIELDS if name in host}
    kept = {name: text for name, text in base["host"].items() if not name.startswith("links_")}
    links = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries]
    return dump_profile({**base, "host": {**kept, **of_links}, "links": links})


def entry_line(entry: LinkEntry) -> str:
    """Returns one fit in one line: what, the first byte's time, the last regime's bandwidth, the errors."""
    what = f"{entry.collective:15} {entry.implementation:15} {entry.mode:10} {entry.num_gpus:4d}"
    rate, errors = entry.regimes[-1].bytes_per_s.value / 1e9, entry.held_out
    shown = f"{errors.median:7.1%} {errors.p90:7.1%} {errors.worst:7.1%}"
    return f"{what}  {entry.latency_s.value * 1e6:9.2f} us {rate:7.1f} GB/s {shown}"


def parse_numbers(text: str) -> tuple[int, ...]:
    """Returns the numbers of a list with commas. Raises: CalibrationError if one is none."""
    names = parse_names(text)
    if not all(name.isdigit() for name in names):
        raise CalibrationError(f"--gpus: expected numbers by comma like 2,4, got {text!r}")
    return tuple(int(name) for name in names)
