"""The client of a recorded run: in the engine's process (`AsyncLLM`), behind its front end only.

The front end's times are those of an engine profile. A plain scenario leaves them at 0.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import Problem, ProfileError, ScenarioError
from ...hwmodels.engine_profile import load_engine_profile, shipped_front_end
from ...hwmodels.front_end_profile import FrontEndProfile
from ..deployment import from_folder
from ..pool import PoolConfig
from ..scenario import Scenario


def with_in_process_client(scenario: Scenario, engine: str, folder: Path) -> Scenario:
    """Returns the scenario with the front end's times of the engine, where its pools have none of their own.

    folder: what paths in the scenario are relative to.
    Raises: ScenarioError for an engine profile that is unknown or invalid.
    """
    pools = []
    for number, pool in enumerate(scenario.pools):
        front_end = _front_end(pool, engine, folder, f"$.pools[{number}].engine_profile")
        overhead = pool.engine_overhead
        times = {} if front_end is None else front_end.times()
        given = {f"frontend_{name}": time_s for name, time_s in times.items()}
        unset = {name: time_s for name, time_s in given.items() if name not in overhead.model_fields_set}
        pools.append(pool.model_copy(update={"engine_overhead": overhead.model_copy(update=unset)}))
    return scenario.model_copy(update={"pools": tuple(pools)})


def _front_end(pool: PoolConfig, engine: str, folder: Path, path: str) -> FrontEndProfile | None:
    """Returns the front end of the pool's engine profile, the shipped one if it names none that has one."""
    if pool.engine_profile is not None:
        try:
            named = load_engine_profile(from_folder(pool.engine_profile, folder))
        except ProfileError as error:
            raise ScenarioError([Problem(path, str(error))]) from error
        if named.front_end is not None:
            return named.front_end
    return shipped_front_end(engine, pool.device)
