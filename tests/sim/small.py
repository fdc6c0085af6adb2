"""A small scenario that runs in a blink, as the plain data of its YAML file."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from simllm.sim.overrides import apply_overrides
from simllm.sim.scenario import Scenario, parse_scenario

_SMALL: dict[str, Any] = {
    "name": "small",
    "workload": {
        "kind": "synthetic",
        "num_requests": 40,
        "arrivals": {"kind": "poisson", "request_rate": 20},
        "prompt_tokens": {"kind": "uniform", "min_tokens": 10, "max_tokens": 900},
        "output_tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 60},
    },
    "pools": [{"model": "llama-3.1-8b", "device": "h100-sxm"}],
}


def small(*overrides: str) -> dict[str, Any]:
    """Returns the scenario's data with each `path.to.field=value` set."""
    return apply_overrides(deepcopy(_SMALL), overrides)


def scenario(*overrides: str) -> Scenario:
    """Returns the scenario itself."""
    return parse_scenario(small(*overrides))


def write(folder: Path, *overrides: str) -> Path:
    """Writes the scenario's file and returns its path."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(small(*overrides)), encoding="utf-8")
    return path
