"""simllm predicts how fast, how well and how cheaply a large language model can be served.

    >>> import simllm
    >>> result = simllm.simulate("scenarios/01-first-run.yaml")
    >>> result.summary()["mean_ttft_ms"]

`simulate` and the types around it are loaded on first use, so that `import simllm` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import SimllmError
from .hot_modules import prefer_compiled
from .version import __version__

if TYPE_CHECKING:
    from .sim.outcome.results import Result
    from .sim.run import simulate
    from .sim.scenario import Scenario, load_scenario
    from .sim.study.goodput import goodput
    from .sim.study.study import Study

prefer_compiled()

_LAZY = {
    "Result": "sim.outcome.results",
    "Scenario": "sim.scenario",
    "Study": "sim.study.study",
    "goodput": "sim.study.goodput",
    "load_scenario": "sim.scenario",
    "simulate": "sim.run",
}

__all__ = [
    "Result",
    "Scenario",
    "SimllmError",
    "Study",
    "__version__",
    "goodput",
    "load_scenario",
    "simulate",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
