"""docs/engine-profile.md shows what the shipped engine profile says, and what it shows can be run."""

from __future__ import annotations

import re
import runpy
from dataclasses import fields
from pathlib import Path

import yaml

from simllm.hwmodels.engine_profile import EngineOverhead, load_engine_profile
from simllm.sim.deployment import deploy
from simllm.sim.pool import PoolConfig
from simllm.sim.validate.engine_fit import BOUNDS
from simllm.sim.world.front_end import FrontEndTimes

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "engine-profile.md").read_text(encoding="utf-8")
CONSTANTS = [field.name for field in fields(EngineOverhead)]
FRONT_END = [field.name for field in fields(FrontEndTimes)]


def test_the_figures_are_those_of_the_shipped_profile() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "generate_engine_profile.py"))
    assert script["page"](TEXT) == TEXT, "run `make generated`"


def test_every_constant_is_explained_and_fitted() -> None:
    assert list(BOUNDS) == CONSTANTS
    rows = re.findall(r"^\| `(\w+)` \| ", TEXT, re.MULTILINE)
    # What it is; its figures.
    assert rows == [*CONSTANTS * 2, *FRONT_END * 2]


def test_the_pool_of_the_page_is_one() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (pool,) = yaml.safe_load(shown)["pools"]
    model = deploy(PoolConfig.model_validate(pool), ROOT).step_model
    assert model.overhead.step_s == 0.0002
    assert model.overhead.decode_ratio == load_engine_profile("vllm-0.22-h200-sxm").overhead().decode_ratio
