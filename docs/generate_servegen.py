"""Fits scenarios/data/deepseek-r1.yaml to ServeGen's reasoning clients; its error goes into workloads.md.

Needs the published folder below ${SIMLLM_TRACES}. `python docs/generate_servegen.py`
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import yaml

from simllm.sim.workload.demand import FloatColumn
from simllm.sim.workload.servegen import ClientRows, draw_clients, lengths_at
from simllm.sim.workload.traces.servegen import ArrivalWindow, Client, read_folder
from simllm.sim.workload.traces.servegen_fit import HOUR_S, read_fit

ROOT = Path(__file__).parents[1]
FIT, PAGE = ROOT / "scenarios" / "data" / "deepseek-r1.yaml", ROOT / "docs" / "workloads.md"
DAY_S = 86400.0
NUM_ALONE = 11
"""So many clients are fitted one by one, the others together."""
CUMULATIVE = (*(round(point / 10, 1) for point in range(10)), 0.95, 0.975, 0.99, 0.995, 0.999, 1.0)
QUARTERS_S = (0.0, 21600.0, 43200.0, 64800.0)
"""When the published histograms change."""
NAMES = ("input_tokens", "output_tokens", "reason_ratio")
HEADER = """\
# ServeGen's DeepSeek-R1 reasoning clients (https://github.com/alibaba/ServeGen, data/reason/deepseek-r1,
# Apache-2.0; arXiv:2505.09999), fitted by docs/generate_servegen.py: the 11 clients with the most requests
# one by one, the other {rest} together, largest first. What the fit leaves out is in docs/workloads.md.
"""


def gamma_shape(window: ArrivalWindow) -> float:
    """Returns the shape of the Gamma gaps with the same coefficient of variation.

    Weibull of shape k: cv^2 = G(1 + 2/k) / G(1 + 1/k)^2 - 1; Gamma of shape a: cv^2 = 1 / a.
    Source: Johnson, Kotz, Balakrishnan, Continuous Univariate Distributions, vol. 1, chapters 17 and 21.
    """
    if window.distribution == "gamma":
        return window.shape
    first, second = math.lgamma(1 + 1 / window.shape), math.lgamma(1 + 2 / window.shape)
    return 1 / math.expm1(second - 2 * first)


def quantiles(clients: list[Client], name: str, start_s: float) -> list[float] | None:
    """Returns the quantiles of all requests of some clients in a quarter of the day, None without any."""
    values, weights = [np.zeros(0)], [np.zeros(0)]
    for client in clients:
        for window in client.arrivals:
            if not start_s <= window.start_s < start_s + DAY_S / 4:
                continue
            histogram = getattr(lengths_at(client.lengths, window.start_s), name)
            if histogram is not None:
                values.append(histogram.values)
                weights.append(histogram.weights / histogram.weights.sum() * window.num_requests)
    flat, mass = np.concatenate(values), np.concatenate(weights)
    order = np.argsort(flat)
    order = order[mass[order] > 0]
    if not len(order):
        return None
    reached = np.cumsum(mass[order]) / mass.sum()
    picked = np.minimum(np.searchsorted(reached, CUMULATIVE), len(order) - 1)
    digits = 4 if name == "reason_ratio" else 0
    return [round(float(value), digits) for value in flat[order][picked]]


def fitted(clients: list[Client]) -> dict[str, object]:
    """Returns the entry of some clients taken together."""
    windows = [window for client in clients for window in client.arrivals]
    counts = np.array([window.num_requests for window in windows])
    shapes = np.array([gamma_shape(window) for window in windows])
    per_hour = np.bincount([int(window.start_s // HOUR_S) for window in windows], counts, minlength=24)
    return {
        "burstiness": round(float(np.exp(np.average(np.log(shapes), weights=counts))), 3),
        "rates_per_s": [round(float(rate), 5) for rate in per_hour / HOUR_S],
        "lengths": [
            {"start_s": start_s, **found}
            for start_s in QUARTERS_S
            if all((found := {name: quantiles(clients, name, start_s) for name in NAMES}).values())
        ],
    }


def write_fit(clients: list[Client]) -> None:
    """Writes the fit, whole or not at all."""
    by_size = sorted(clients, key=lambda client: -sum(window.num_requests for window in client.arrivals))
    groups = [*([client] for client in by_size[:NUM_ALONE]), by_size[NUM_ALONE:]]
    body = {
        "format": "simllm-servegen-fit",
        "source": "https://github.com/alibaba/ServeGen data/reason/deepseek-r1",
        "cumulative": list(CUMULATIVE),
        "clients": [fitted(group) for group in groups],
    }
    text = yaml.safe_dump(body, sort_keys=False, default_flow_style=None, width=110)
    part = FIT.with_suffix(".part")
    part.write_text(HEADER.format(rest=len(by_size) - NUM_ALONE) + text, encoding="utf-8")
    part.replace(FIT)


def distance(one: FloatColumn, other: FloatColumn) -> float:
    """Returns the largest difference of the two distribution functions (Kolmogorov and Smirnov's)."""
    points = np.union1d(one, other)
    shares = [np.searchsorted(np.sort(values), points, side="right") / len(values) for values in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def dispersion(times: FloatColumn, bin_s: float) -> float:
    """Returns variance / mean of the counts in bins of this width; 1 for Poisson arrivals of one rate."""
    counts = np.bincount((times // bin_s).astype(np.int64), minlength=int(DAY_S / bin_s))
    return float(counts.var() / counts.mean())


def table(real: ClientRows, fit: ClientRows) -> list[str]:
    """Returns the rows of the table of errors."""
    rows = ["| of a day of requests | published | fit | error |", "|---|---|---|---|"]

    def add(what: str, one: float, other: float, digits: int = 0) -> None:
        rows.append(f"| {what} | {one:,.{digits}f} | {other:,.{digits}f} | {other / one - 1:+.1%} |")

    add("requests", len(real.arrived_at), len(fit.arrived_at))
    for bin_s in (1.0, 10.0, 60.0):
        what = f"variance / mean of arrivals in {bin_s:g} s"
        add(what, dispersion(real.arrived_at, bin_s), dispersion(fit.arrived_at, bin_s), 1)
    columns = (
        ("input tokens", real.prompt_tokens, fit.prompt_tokens, 0),
        ("output tokens", real.output_tokens, fit.output_tokens, 0),
        ("reasoning / output", real.reason_ratio, fit.reason_ratio, 3),
    )
    for what, one, other, digits in columns:
        add(f"{what}, mean", one.mean(), other.mean(), digits)
        for percent in (10, 50, 90, 99):
            ours, theirs = (float(np.percentile(values, percent)) for values in (one, other))
            add(f"{what}, p{percent}", ours, theirs, digits)
        largest = distance(one.astype(np.float64), other.astype(np.float64))
        rows.append(f"| {what}, largest difference of shares | | | {largest:.3f} |")
    for quarter in range(4):
        first, last = 6 * quarter, 6 * quarter + 6
        ours, theirs = (
            float(one.output_tokens[one.arrived_at // (DAY_S / 4) == quarter].mean()) for one in (real, fit)
        )
        add(f"output tokens, mean from {first} to {last} h", ours, theirs)
    pairs = (np.corrcoef(one.prompt_tokens, one.output_tokens)[0, 1] for one in (real, fit))
    rows.append("| correlation of input and output | {:.2f} | {:.2f} | |".format(*pairs))
    return rows


def main() -> None:
    """Fits, and writes the table between its marks in the page."""
    clients = read_folder(Path(os.environ["SIMLLM_TRACES"]) / "servegen/data/reason/deepseek-r1", 0.0, DAY_S)
    write_fit(clients)
    real = draw_clients(clients, 0.0, DAY_S, seed=0)
    fit = draw_clients(read_fit(FIT, 0.0, DAY_S), 0.0, DAY_S, seed=0)
    text = PAGE.read_text(encoding="utf-8")
    marks = "<!-- servegen-fit -->", "<!-- end of servegen-fit -->"
    block = "\n".join([marks[0], *table(real, fit), marks[1]])
    PAGE.write_text(re.sub(f"{marks[0]}.*?{marks[1]}", lambda _: block, text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    main()
