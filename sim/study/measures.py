"""What is kept of a run in a study: its summary's numbers, or how well it kept an SLO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..outcome.results import Result
from ..outcome.summary import Summary
from .orders import Row
from .slo import Objective
from .stability import load_over_time

# Of the summary's head and structures nothing is a result of its own.
_LEFT_OUT = ("schema_version", "seed", "slo", "kv_waste")


def summary_row(summary: Summary) -> Row:
    """Returns the numbers of a summary, those of its inner records as `record.key`."""
    num_gpus = sum(pool["num_replicas"] * pool["num_gpus_per_replica"] for pool in summary["pools"])
    throughput = summary["output_throughput"]
    row: Row = {
        "num_gpus": num_gpus,
        "output_throughput_per_gpu": None if throughput is None else throughput / num_gpus,
    }
    for key, value in summary.items():
        if key in _LEFT_OUT:
            continue
        if _is_number(value):
            row[key] = value
        elif isinstance(value, Mapping) and value and all(map(_is_number, value.values())):
            row |= {f"{key}.{inner}": number for inner, number in value.items()}
    return row


def slo_row(result: Result, objective: Objective) -> Row:
    """Returns what a search for goodput needs of a run: shares of good requests, and its stability."""
    summary, requests = result.summary(), result.requests
    return {
        "num_requests": len(requests),
        "completed": summary["completed"],
        "shares": objective.shares(requests),
        "percentiles_ms": objective.percentiles_ms(requests),
        "request_throughput": summary["request_throughput"],
        "output_throughput": summary["output_throughput"],
        **load_over_time(requests),
    }


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
