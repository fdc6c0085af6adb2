"""The command `simllm ops`: a table of operations in, the same table with times out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from .errors import SimllmError, nearest_choice
from .hwmodels.engine_profile import shipped_engine_profile
from .hwmodels.kernel_choice import OURS, KernelChoice
from .hwmodels.op_columns import OpRow, RowError, parse_row
from .hwmodels.op_table import OpTable, PricedOp
from .hwmodels.profile import HardwareProfile, load_profile
from .sim.outcome.files import write_text_whole
from .units import US

ADDED = ("time_us", "flops", "bytes", "bound", "extrapolated")
_ENGINE = "vllm"


class Line(NamedTuple):
    """A row of the table: its line in the file, its cells in the file's order, and what they mean."""

    number: int
    cells: Sequence[str]
    row: OpRow


def ops(
    rows: Annotated[
        Path, typer.Argument(metavar="ROWS.CSV", help="One operation a row; its first line names columns.")
    ],
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="A calibrated profile or a device, by name or file.")
    ],
    kernels: Annotated[
        str, typer.Option(metavar="WHOSE", help="vllm, triton (ours), or by op: gemm=cublas,rms_norm=torch.")
    ] = _ENGINE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The table to write; else printed.")
    ] = None,
) -> None:
    """Predict many operations at once: adds time_us, flops, bytes, bound and extrapolated to every row.

    Columns, as an op needs them: op, dtype (bf16 if empty), m, n, k, batch, query_len, context_len,
    num_q_heads, num_kv_heads, head_dim, num_experts, top_k, num_bytes, num_gpus. Others are carried along.
    """
    loaded = load_profile(profile)
    table = OpTable(loaded, _kernels(kernels, loaded))
    header, lines = read_table(rows)
    text = _written(header, lines, priced(rows, table, lines))
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text_whole(output, text)
        typer.echo(f"{output}: {len(lines)} operations", err=True)


def _kernels(text: str, profile: HardwareProfile) -> KernelChoice:
    """Returns the choice, with the ratios of the engine whose kernels it stands for."""
    engine = None if text == OURS else shipped_engine_profile(_ENGINE, profile.name)
    return KernelChoice.parse(text, None if engine is None else engine.overhead().kernel_ratios)


def read_table(path: Path) -> tuple[list[str], list[Line]]:
    """Returns the header and the rows of a table.

    Raises: SimllmError with one line `file:line: what` for every malformed row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SimllmError(f"{path}: cannot be read: {error}") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(reader, [])]
    _check_header(path, header)
    lines: list[Line] = []
    problems: list[str] = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        try:
            lines.append(Line(reader.line_num, cells, _row(header, cells)))
        except RowError as error:
            problems += [f"{path}:{reader.line_num}: {what}" for what in error.problems]
    if problems:
        raise SimllmError("\n".join(problems))
    if not lines:
        raise SimllmError(f"{path}: holds no operations")
    return header, lines


def _check_header(path: Path, header: Sequence[str]) -> None:
    if "op" not in header:
        nearest = nearest_choice("op", header)
        hint = "" if nearest is None else f", only {nearest!r}"
        raise SimllmError(f"{path}:1: no column 'op'{hint}")
    for name in header:
        if name in ADDED:
            raise SimllmError(f"{path}:1: column {name!r} is there already; it is what gets added")
        if name and header.count(name) > 1:
            raise SimllmError(f"{path}:1: column {name!r} is there twice")


def _row(header: Sequence[str], cells: Sequence[str]) -> OpRow:
    if len(cells) > len(header):
        raise RowError([f"{len(cells)} cells, but {len(header)} columns"])
    return parse_row(dict(zip(header, cells, strict=False)))


def priced(path: Path, table: OpTable, lines: Sequence[Line]) -> list[PricedOp]:
    """Returns the prices of all rows. Raises: SimllmError with a line for each that has none."""
    found: list[PricedOp] = []
    problems: list[str] = []
    for line in lines:
        try:
            found.append(table.price(line.row))
        except SimllmError as error:
            problems.append(f"{path}:{line.number}: {error}")
    if problems:
        raise SimllmError("\n".join(problems))
    return found


def _written(header: Sequence[str], lines: Sequence[Line], prices: Sequence[PricedOp]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*header, *ADDED])
    for line, price in zip(lines, prices, strict=True):
        missing = [""] * (len(header) - len(line.cells))
        writer.writerow([*line.cells, *missing, *_added(price)])
    return out.getvalue()


def _added(price: PricedOp) -> Iterator[str]:
    yield f"{price.time_s / US:.6g}"
    yield f"{price.flops:.0f}"
    yield f"{price.num_bytes:.0f}"
    yield price.bound
    yield "true" if price.is_extrapolated else "false"
