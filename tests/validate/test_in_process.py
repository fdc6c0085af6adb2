"""Where the front end's times of a replay come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from simllm.errors import ScenarioError
from simllm.hwmodels.engine_profile import dump_engine_profile, load_engine_profile
from simllm.sim.pool import EngineOverheadConfig
from simllm.sim.validate.replay import GivenSettings, replay_of
from simllm.sim.workload.traces.vllm_bench import BenchResult

from .handmade import write_bench

SHIPPED = load_engine_profile("vllm-0.22-h200-sxm")


def overhead_of(path: Path, *overrides: str, device: str | None = None) -> EngineOverheadConfig:
    given = GivenSettings(device=device, overrides=overrides)
    return replay_of(BenchResult(path, None), given).scenario.pools[0].engine_overhead


def write_profile(folder: Path, *, in_s: float | None) -> Path:
    """Writes an engine profile whose front end takes `in_s` and has no hold; None: has no front end."""
    plain = yaml.safe_load(dump_engine_profile(SHIPPED))
    if in_s is None:
        del plain["front_end"]
    else:
        constants = plain["front_end"]["constants"]
        constants["in_s"] |= {"value": in_s, "low": in_s, "high": in_s}
        del constants["hold_s"]
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


@pytest.mark.parametrize("device", [None, "h100-sxm"])
def test_a_replay_has_the_shipped_front_end_on_any_gpu(tmp_path: Path, device: str | None) -> None:
    assert SHIPPED.front_end is not None
    found = overhead_of(write_bench(tmp_path), device=device)
    times = {f"frontend_{name}": time_s for name, time_s in SHIPPED.front_end.times().items()}
    assert len(times) == 9
    assert found == EngineOverheadConfig.model_validate(times)


def test_an_engine_profile_that_is_named_brings_its_own_front_end(tmp_path: Path) -> None:
    profile = write_profile(tmp_path, in_s=0.005)
    found = overhead_of(write_bench(tmp_path), f"pools.0.engine_profile={profile}")
    assert (found.frontend_in_s, found.frontend_hold_s) == (0.005, 0.0)  # what no run showed takes no time


def test_an_engine_profile_without_a_front_end_leaves_the_shipped_one(tmp_path: Path) -> None:
    profile = write_profile(tmp_path, in_s=None)
    path = write_bench(tmp_path)
    assert overhead_of(path, f"pools.0.engine_profile={profile}") == overhead_of(path)


def test_a_time_that_the_user_gives_stays(tmp_path: Path) -> None:
    path = write_bench(tmp_path)
    found = overhead_of(path, "pools.0.engine_overhead.frontend_out_s=0")
    assert found == overhead_of(path).model_copy(update={"frontend_out_s": 0.0})


def test_a_plain_file_has_no_front_end(tmp_path: Path) -> None:
    path = write_bench(tmp_path, engine=None, model_id="meta-llama/Llama-3.1-8B")
    assert overhead_of(path, device="h200-sxm") == EngineOverheadConfig()


def test_an_engine_profile_that_is_none_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"^\$\.pools\[0\]\.engine_profile: .*vllm-0.23"):
        overhead_of(write_bench(tmp_path), "pools.0.engine_profile=vllm-0.23")
