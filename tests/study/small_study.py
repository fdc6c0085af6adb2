"""A small study that runs in a blink, as the plain data of its YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from sim.small import small

SMALL = ("workload.num_requests=30",)
# A scheduler that ends its process as it is loaded: what the kernel does to one that eats all memory.
DEADLY = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def study(**fields: Any) -> dict[str, Any]:
    """Returns a study of the small scenario: two rates, two seeds, unless `fields` say otherwise."""
    axis = {"path": "workload.arrivals.request_rate", "name": "rate", "values": [10, 20]}
    return {"name": "small-study", "scenario": small(*SMALL), "axes": [axis], "seeds": 2, **fields}


def write(folder: Path, **fields: Any) -> Path:
    """Writes the study's file and returns its path."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study(**fields)), encoding="utf-8")
    return path


def deadly_axis(folder: Path) -> dict[str, Any]:
    """Returns an axis of two schedulers, of which the second kills its worker."""
    (folder / "deadly.py").write_text(DEADLY, encoding="utf-8")
    deadly = {"kind": "python", "path": str(folder / "deadly.py:Deadly")}
    return {"path": "pools.0.scheduler", "name": "scheduler", "values": [{"kind": "vllm_v1"}, deadly]}
