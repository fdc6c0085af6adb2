"""`simllm calibrate report`: a page about a profile, from it and the samples that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import CalibrationError
from ..hwmodels import profile as profiles
from ..hwmodels.profile import load_profile
from .files import check_writable, write_whole
from .samples import SAMPLES_SUFFIX, read_samples


def report_command(
    profile: Annotated[
        str, typer.Argument(help="A calibrated profile (YAML), or the name of a shipped one.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write (HTML).")],
    samples: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its samples; those beside the profile if not given.")
    ] = None,
) -> None:
    """Write one HTML page: roofline, predicted against measured, residuals, ladder, errors, host."""
    check_writable(output)
    loaded = load_profile(profile)
    rows, _ = read_samples(samples or samples_of(profile))
    try:
        from .report import report_html
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "plotly":
            raise
        raise CalibrationError("reports need plotly: pip install 'simllm[report]'") from None
    write_whole(output, report_html(loaded, rows))
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB", err=True)


def samples_of(profile: str) -> Path:
    """Returns where the samples of a profile lie: beside its file, or beside the shipped one of that name."""
    path = Path(profile)
    if not path.is_file():
        path = Path(profiles.__file__).parent / "profiles" / f"{profile.lower()}.yaml"
    return path.with_suffix(SAMPLES_SUFFIX)
