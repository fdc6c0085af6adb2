"""Service level objectives as users type them, `ttft_p99=500ms,tpot_p99=50ms`, and who keeps them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import Problem, ScenarioError, nearest_choice
from ...units import MS_PER_S

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("ttft", "ttfo", "tpot", "e2el")
DEFAULT_ATTAINMENT = 0.9
_MS = {"us": 1e-3, "ms": 1.0, "s": MS_PER_S, "min": 60 * MS_PER_S}
_NAMED = {"median": 50.0, "max": 100.0}
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)")
_OPTION = "--slo"
ATTAINMENT = "attainment"
_DIGITS = 12  # 99.9 / 100 shall be 0.999, which 999 of 1,000 are


@dataclass(frozen=True, slots=True)
class SloTerm:
    """One limit [ms] of a metric: of a percentile of all requests, or without one of each request.

    A percentile is within the limit if so many per cent of the requests are; those that were rejected or
    did not finish are not.
    """

    metric: str
    limit_ms: float
    percent: float | None = None

    @property
    def name(self) -> str:
        """The term as it is typed, without its limit."""
        return self.metric if self.percent is None else f"{self.metric}_p{self.percent:g}"


@dataclass(frozen=True, slots=True)
class Objective:
    """Limits, and the share of requests that must keep all of them at once (`attainment`, None for no such).

    Attainment counts the limits without a percentile, or if each has one, all.
    """

    terms: tuple[SloTerm, ...]
    attainment: float | None

    @property
    def needed(self) -> dict[str, float]:
        """What share of the requests must be good, by criterion."""
        shares = {
            term.name: round(term.percent / 100, _DIGITS) for term in self.terms if term.percent is not None
        }
        return shares if self.attainment is None else {**shares, ATTAINMENT: self.attainment}

    def as_dict(self) -> dict[str, Any]:
        """Returns the objective as JSON can hold it."""
        terms = [[term.metric, term.limit_ms, term.percent] for term in self.terms]
        return {"terms": terms, "attainment": self.attainment}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Objective:
        """Returns the objective that `as_dict` wrote."""
        return cls(tuple(SloTerm(*term) for term in data["terms"]), data["attainment"])

    def shares(self, requests: pd.DataFrame) -> dict[str, float]:
        """Returns the share of good requests by criterion, the keys of `needed`."""
        kept = {term: _kept(requests, term) for term in self.terms}
        shares = {term.name: float(good.mean()) for term, good in kept.items() if term.percent is not None}
        if self.attainment is None:
            return shares
        counted = [term for term in self.terms if term.percent is None] or self.terms
        return {**shares, ATTAINMENT: float(np.all([kept[term] for term in counted], axis=0).mean())}

    def percentiles_ms(self, requests: pd.DataFrame) -> dict[str, float | None]:
        """Returns by term the percentile that it limits [ms], None if that is a request without a value.

        Of a term without one it is the attainment's.
        """
        return {
            term.name: _percentile_ms(requests, term, 100 * (self.attainment or DEFAULT_ATTAINMENT))
            for term in self.terms
        }


def parse_slo(text: str, attainment: float | None = None) -> Objective:
    """Returns the objective that `metric[_percentile]=limit,...` stands for.

    attainment: by default 0.9 if there is a limit without a percentile, else nothing beside the percentiles.
    Raises: ScenarioError with every problem: what was typed, what can be, and what resembles it.
    """
    terms: list[SloTerm] = []
    problems: list[Problem] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            terms.append(_term(part))
        except ScenarioError as error:
            problems += error.problems
    if not terms and not problems:
        problems.append(Problem(_OPTION, "must be metric_percentile=limit,..., as in ttft_p99=500ms", text))
    names = [term.name for term in terms]
    problems += [
        Problem(_OPTION, "limits this twice", name) for name in sorted(set(names)) if names.count(name) > 1
    ]
    if problems:
        raise ScenarioError(problems)
    return objective_of(terms, attainment)


def objective_of(terms: Sequence[SloTerm], attainment: float | None = None) -> Objective:
    """Returns the objective of these limits. Raises: ScenarioError if attainment is not in (0, 1]."""
    if attainment is not None and not 0 < attainment <= 1:
        raise ScenarioError([Problem("--attainment", "must be above 0 and at most 1", attainment)])
    if attainment is None and any(term.percent is None for term in terms):
        attainment = DEFAULT_ATTAINMENT
    return Objective(tuple(terms), attainment)


def _term(text: str) -> SloTerm:
    name, separator, limit = (part.strip() for part in text.partition("="))
    if not separator:
        raise ScenarioError([Problem(_OPTION, "must be metric_percentile=limit, as in ttft_p99=500ms", text)])
    metric, underscore, statistic = name.partition("_")
    if metric not in METRICS:
        what = f"must limit one of {', '.join(METRICS)}"
        raise ScenarioError([Problem(f"{_OPTION} {name}", what, metric, nearest_choice(metric, METRICS))])
    percent = _percent(name, statistic) if underscore else None
    return SloTerm(metric, _limit_ms(name, limit), percent)


def _percent(name: str, statistic: str) -> float:
    if statistic in _NAMED:
        return _NAMED[statistic]
    match = _PERCENTILE.fullmatch(statistic)
    if match is None or float(match[1]) == 0:
        nearest = nearest_choice(statistic, ("p50", "p90", "p95", "p99", "p99.9", *_NAMED))
        what = "must name a percentile: p1 to p100, median or max"
        raise ScenarioError([Problem(f"{_OPTION} {name}", what, statistic, nearest)])
    return float(match[1])


def _limit_ms(name: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise ScenarioError(
            [Problem(f"{_OPTION} {name}", "must have a limit above 0 with its unit: 500ms", text)]
        )
    if match[2] not in _MS:
        what = f"must have a unit: {', '.join(_MS)}"
        nearest = nearest_choice(match[2], _MS) if match[2] else None
        raise ScenarioError([Problem(f"{_OPTION} {name}", what, text, nearest)])
    return float(match[1]) * _MS[match[2]]


def _values_ms(requests: pd.DataFrame, metric: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns the metric of every request [ms]; infinite where it did not finish, 0 for TPOT of one token.

    That is what `vllm bench serve --goodput` takes for it.
    """
    values = requests[f"{metric}_ms"].to_numpy(dtype=np.float64, na_value=np.nan)
    is_done = (requests["status"] == "finished").to_numpy()
    return np.where(is_done, np.nan_to_num(values, nan=0.0), np.inf)


def _kept(requests: pd.DataFrame, term: SloTerm) -> np.ndarray[Any, np.dtype[np.bool_]]:
    kept: np.ndarray[Any, np.dtype[np.bool_]] = _values_ms(requests, term.metric) <= term.limit_ms
    return kept


def _percentile_ms(requests: pd.DataFrame, term: SloTerm, otherwise: float) -> float | None:
    values = _values_ms(requests, term.metric)
    percent = otherwise if term.percent is None else term.percent
    # An order statistic: between a time and one that never came there is nothing to interpolate.
    value = float(np.percentile(values, percent, method="inverted_cdf"))
    return value if math.isfinite(value) else None
