"""Recorded runs as the fit of an engine's constants takes them: steps, and how to price them."""

from __future__ import annotations

from pathlib import Path

from ...errors import TraceError
from ...hwmodels.engine_profile import EngineOverhead
from ...hwmodels.model_config import load_model
from ...hwmodels.profile import HardwareProfile
from ...hwmodels.step import StepModel
from ..parallelism import parallel_spec, steps_in_flight
from ..step_models import make_step_model
from ..workload.traces.lines import open_text, parse_object
from .engine_block import EngineBlock, pool_of, read_engine_block
from .engine_fit import EngineRun
from .files import run_name, steps_beside
from .recorded_steps import read_steps


def engine_run(path: Path, profile: HardwareProfile) -> tuple[EngineRun, EngineBlock]:
    """Returns a result file's recorded steps, which lie beside it as `RUN.steps.csv.gz`, and its engine.

    Raises: TraceError and ScenarioError, one line, for files that are malformed or lack an `engine` block.
    """
    with open_text(path) as file:
        block = parse_object(file.read(), path, None).get("engine")
    if not isinstance(block, dict):
        raise TraceError(path, None, "has no `engine` block, which a fit needs")
    engine = read_engine_block(block, path)
    pool = pool_of(engine, device=profile.name, path=path)
    model = load_model(pool.model)

    def model_of(overhead: EngineOverhead) -> StepModel:
        return make_step_model(pool, model, profile, overhead)

    run = EngineRun(
        name=run_name(path),
        steps=read_steps(steps_beside(path)),
        model_of=model_of,
        graphs=make_step_model(pool, model, profile, EngineOverhead()).cuda_graph,
        power=profile.power,
        depth=steps_in_flight(pool),
        num_gpus=parallel_spec(pool).num_gpus,
        schedule_s=pool.engine_overhead.schedule_s,
    )
    return run, engine
