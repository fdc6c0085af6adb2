"""An engine profile from recorded runs: what comes on top of kernels, and what the front end takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import TraceError
from ...hwmodels.engine_profile import EngineProfile
from ...hwmodels.front_end_profile import FrontEndProfile
from ...hwmodels.profile import HardwareProfile
from .engine_block import EngineBlock
from .engine_fit import fit_engine
from .engine_runs import engine_run
from .files import run_name, steps_beside
from .front_end.client_run import ClientRun, client_run
from .front_end.fit import fit_front_end


def fit_profile(
    results: Sequence[Path], hardware: HardwareProfile, name: str
) -> tuple[EngineProfile, tuple[str, ...]]:
    """Returns the profile of the engine that recorded the runs, and why some tell of no front end.

    Raises: TraceError and ScenarioError, one line, for files that are malformed, lack an `engine` block or
    the record of steps beside them, or are of several engines.
    """
    runs, engines = zip(*(engine_run(path, hardware) for path in results), strict=True)
    versions = sorted({(engine.name, engine.version) for engine in engines})
    if len(versions) > 1:
        raise TraceError(results[0], None, f"the runs are of several engines: {versions}")
    front_end, left_out = _front_end(zip(results, engines, strict=True))
    fit = fit_engine(runs)
    profile = EngineProfile(
        schema_version=1,
        kind="fitted",
        name=name,
        engine=versions[0][0],
        version=versions[0][1],
        device=hardware.device.name,
        profile=hardware.name,
        constants=fit.constants,
        runs=fit.runs,
        front_end=front_end,
    )
    return profile, left_out


def _front_end(
    recorded: Iterable[tuple[Path, EngineBlock]],
) -> tuple[FrontEndProfile | None, tuple[str, ...]]:
    """Returns the front end of the runs that client and engine both recorded, None if there are none."""
    found: list[ClientRun] = []
    left_out: list[str] = []
    for path, engine in recorded:
        try:
            run = client_run(path, steps_beside(path), run_name(path), engine.max_num_batched_tokens)
            found.append(run)
        except TraceError as error:
            left_out.append(str(error))
    return fit_front_end(found) if found else None, tuple(left_out)
