"""Requests of a service's clients: each client's own arrivals, lengths and reasoning, then all in order."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import TraceError
from .demand import Demand, FloatColumn, IntColumn
from .reasoning import limited, part_of
from .spec import ServeGenSpec
from .streams import stream
from .traces.servegen import ArrivalWindow, Client, LengthWindow, read_folder
from .traces.servegen_fit import read_fit


class ClientRows(NamedTuple):
    """Requests of a client: instants [s], lengths, and the share of the output that is reasoning."""

    arrived_at: FloatColumn
    prompt_tokens: IntColumn
    output_tokens: IntColumn
    reason_ratio: FloatColumn


def load_servegen(spec: ServeGenSpec, path: Path, *, seed: int) -> Demand:
    """Returns the requests between start_s and start_s + duration_s, from 0 on, in order of arrival.

    path: the published folder, or a file of a fit to it. In each window of a client as many requests arrive
    as were counted, with gaps of the fitted shape. Lengths and the share of reasoning are drawn
    independently, as the published histograms are.
    SIMPLIFIED: input, output and reasoning of a request are independent given its client and time; effect:
    correlations between them within one client are lost, those between clients are kept.
    Raises: TraceError when a file is missing or malformed, or nothing arrives then.
    """
    start_s, end_s = spec.start_s, spec.start_s + spec.duration_s
    clients = read_folder(path, start_s, end_s) if path.is_dir() else read_fit(path, start_s, end_s)
    rows = draw_clients(clients, start_s, end_s, seed=seed)
    if not len(rows.arrived_at):
        raise TraceError(path, None, f"nothing arrives between {start_s:g} s and {end_s:g} s")
    first = slice(spec.num_requests)
    outputs = rows.output_tokens[first]
    reasoning = part_of(outputs, rows.reason_ratio[first])
    outputs, reasoning = limited(spec.reasoning, outputs - reasoning, reasoning, stream(seed, "reasoning"))
    return Demand(
        rows.arrived_at[first] - start_s,
        rows.prompt_tokens[first],
        outputs,
        reasoning_tokens=reasoning if reasoning.any() else None,
        origin=f"ServeGen {spec.path}: {len(clients)} clients from {start_s:g} s to {end_s:g} s",
    )


def draw_clients(clients: list[Client], start_s: float, end_s: float, *, seed: int) -> ClientRows:
    """Returns the requests of all clients between these instants [s], in order of arrival."""
    rows = _joined(
        [_client_rows(one, stream(seed, f"client {one.number}"), start_s, end_s) for one in clients]
    )
    order = np.argsort(rows.arrived_at, kind="stable")
    return ClientRows(
        rows.arrived_at[order], rows.prompt_tokens[order], rows.output_tokens[order], rows.reason_ratio[order]
    )


def _client_rows(client: Client, rng: np.random.Generator, start_s: float, end_s: float) -> ClientRows:
    parts = []
    for window in client.arrivals:
        times = window_arrivals(window, rng)
        times = times[(times >= start_s) & (times < end_s)]
        lengths, size = lengths_at(client.lengths, window.start_s), len(times)
        prompts, outputs = lengths.input_tokens.sample(rng, size), lengths.output_tokens.sample(rng, size)
        ratios = np.zeros(size) if lengths.reason_ratio is None else lengths.reason_ratio.sample(rng, size)
        parts.append(ClientRows(times, _tokens(prompts), _tokens(outputs), np.clip(ratios, 0.0, 1.0)))
    return _joined(parts)


def _joined(parts: list[ClientRows]) -> ClientRows:
    return ClientRows(
        np.concatenate([np.zeros(0), *(part.arrived_at for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.prompt_tokens for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.output_tokens for part in parts)]),
        np.concatenate([np.zeros(0), *(part.reason_ratio for part in parts)]),
    )


def window_arrivals(window: ArrivalWindow, rng: np.random.Generator) -> FloatColumn:
    """Returns the instants of a window [s]: n gaps of the fitted shape, and one after them, that fill it.

    Of a number that is not whole, the rest is the chance of one more.
    """
    whole = int(window.num_requests + rng.random())
    if not whole:
        return np.zeros(0)
    if window.distribution == "gamma":
        gaps = rng.standard_gamma(window.shape, whole + 1)
    else:
        gaps = rng.weibull(window.shape, whole + 1)
    reached = np.cumsum(gaps)
    if not reached[-1] > 0:
        return np.full(whole, window.start_s)
    instants: FloatColumn = window.start_s + window.duration_s * reached[:-1] / reached[-1]
    return instants


def lengths_at(lengths: list[LengthWindow], at: float) -> LengthWindow:
    """Returns what holds then: the last window that began, or the first one before any did."""
    begun = [window for window in lengths if window.start_s <= at]
    return begun[-1] if begun else lengths[0]


def _tokens(values: FloatColumn) -> IntColumn:
    return np.maximum(np.rint(values).astype(np.int64), 1)
