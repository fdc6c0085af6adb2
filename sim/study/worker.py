"""A worker: runs one simulation after another; as a process it reads orders and replies, a line each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any

from ...errors import SimllmError
from ...version import __version__
from ..run import prepare, simulate_prepared
from ..scenario import Scenario, parse_scenario
from .measures import slo_row, summary_row
from .orders import Payload
from .slo import Objective

# Resolved scenarios hold absolute paths only.
_ROOT = Path("/")


def payload_of(scenario: Scenario, *, allow_python: bool, slo: Objective | None = None) -> Payload:
    """Returns the order to run a resolved scenario; with an SLO its row says how well that was kept."""
    return {
        "scenario": scenario.model_dump(mode="json"),
        "allow_python": allow_python,
        "slo": None if slo is None else slo.as_dict(),
        "version": __version__,
    }


def run_order(payload: Payload) -> dict[str, Any]:
    """Returns the reply to an order: `row` or `error`, and `wall_s` [s]. Never raises."""
    started = perf_counter()
    try:
        return {"row": _row(payload), "wall_s": perf_counter() - started}
    except SimllmError as error:
        what = "; ".join(str(error).splitlines())
    except Exception as error:  # one point's defect is no reason to lose the others
        what = " ".join([f"{type(error).__name__}:", *str(error).split()])
    return {"error": what, "wall_s": perf_counter() - started}


def _row(payload: Payload) -> Mapping[str, Any]:
    if payload["version"] != __version__:
        raise SimllmError(f"this worker has simllm {__version__}, the study {payload['version']}")
    scenario = parse_scenario(payload["scenario"])
    result = simulate_prepared(prepare(scenario, _ROOT, allow_python=payload["allow_python"]))
    if payload["slo"] is None:
        return summary_row(result.summary())
    return slo_row(result, Objective.from_dict(payload["slo"]))


def main() -> None:
    """Replies to the orders on stdin until it ends, and then ends at once, whatever is running."""
    # Replies have stdout to themselves: what a user's policy prints goes elsewhere.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    orders: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_read, args=(orders,), daemon=True).start()
    while True:
        reply = run_order(json.loads(orders.get()))
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _read(orders: SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        orders.put(line)
    os._exit(0)  # nobody is left to read a reply: a study that was killed leaves no process behind


if __name__ == "__main__":
    main()
