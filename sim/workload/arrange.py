"""What all recorded rows go through before they are played: time from 0, in order, faster or slower."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...errors import Problem, ScenarioError
from .content import RunContents
from .demand import Demand, FloatColumn, IntColumn


def in_arrival_order(demand: Demand) -> Demand:
    """Returns the rows sorted by arrival, equal instants as they were; a note counts the displaced ones."""
    steps_back = int((np.diff(demand.arrived_at) < 0).sum())
    if not steps_back:
        return demand
    order = np.argsort(demand.arrived_at, kind="stable")

    def moved(column: IntColumn | None) -> IntColumn | None:
        return None if column is None else column[order]

    contents = demand.contents
    if isinstance(contents, RunContents):
        contents = contents.reordered(order)
    return replace(
        demand,
        arrived_at=demand.arrived_at[order],
        prompt_tokens=demand.prompt_tokens[order],
        output_tokens=demand.output_tokens[order],
        contents=contents,
        session_id=moved(demand.session_id),
        turn=moved(demand.turn),
        image_tokens=moved(demand.image_tokens),
        reasoning_tokens=moved(demand.reasoning_tokens),
        priority=moved(demand.priority),
        num_samples=moved(demand.num_samples),
        beam_width=moved(demand.beam_width),
        tenant=moved(demand.tenant),
        parents=None if demand.parents is None else demand.parents.reordered(order),
        delay_s=None if demand.delay_s is None else demand.delay_s[order],
        notes=(*demand.notes, f"sorted by arrival: {steps_back} rows came before the row above them"),
    )


def scaled(demand: Demand, rate_scale: float) -> Demand:
    """Returns the rows arriving `rate_scale` times as fast.

    Raises: ScenarioError for a closed loop, where answers set the pace.
    """
    if rate_scale == 1.0:
        return demand
    if demand.num_clients is not None:
        problem = Problem("workload.rate_scale", "has no meaning in a closed loop", rate_scale)
        raise ScenarioError([problem])
    note = f"arrivals are played {rate_scale:g} times as fast as recorded"
    return replace(demand, arrived_at=demand.arrived_at / rate_scale, notes=(*demand.notes, note))


def from_zero(instants: FloatColumn) -> FloatColumn:
    """Returns the instants counted from the earliest one."""
    counted: FloatColumn = instants - instants.min()
    return counted
