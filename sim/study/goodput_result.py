"""What a search for goodput found: the rate, how sure it is, what it costs, and the curve behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .cost import Fleet
from .intervals import Interval, t_interval
from .rate import RateKnob
from .search import Bracket, crossing
from .slo import Objective
from .trial import Trial

if TYPE_CHECKING:
    import pandas as pd

_S_PER_HOUR = 3600.0
_MILLION = 1e6


class Goodput:
    """The highest request rate that keeps an objective. pandas is loaded on the first access to a table."""

    def __init__(
        self,
        scenario_name: str,
        knob: RateKnob,
        objective: Objective,
        bracket: Bracket,
        trials: Mapping[float, Trial],
        fleet: Fleet,
        confidence: float,
    ) -> None:
        self.scenario_name, self.knob, self.objective = scenario_name, knob, objective
        self.bracket, self.fleet, self.confidence = bracket, fleet, confidence
        self.trials = {rate: trials[rate] for rate in sorted(trials)}

    @property
    def request_rate(self) -> float:
        """The highest rate tried at which the objective is kept, with the confidence [req/s]; 0 for none."""
        return self.bracket.low or 0.0

    @property
    def request_rate_per_gpu(self) -> float:
        """`request_rate` / GPUs [req/s]."""
        return self.request_rate / self.fleet.num_gpus

    @property
    def requests_per_usd(self) -> float | None:
        """Requests for a dollar; None without a price."""
        usd_per_hour = self.fleet.usd_per_hour
        return None if usd_per_hour is None else self.request_rate * _S_PER_HOUR / usd_per_hour

    @property
    def output_throughput(self) -> float | None:
        """Output tokens per second at `request_rate`, mean over the seeds."""
        return None if self.best is None else self.best.mean("output_throughput")

    @property
    def usd_per_million_output_tokens(self) -> float | None:
        """USD for a million output tokens at `request_rate`; None without a price."""
        throughput, usd_per_hour = self.output_throughput, self.fleet.usd_per_hour
        if not throughput or usd_per_hour is None:
            return None
        return usd_per_hour / _S_PER_HOUR / throughput * _MILLION

    @property
    def best(self) -> Trial | None:
        """The trial of `request_rate`, None if no rate keeps the objective."""
        return None if self.bracket.low is None else self.trials[self.bracket.low]

    @property
    def binding(self) -> str | None:
        """The criterion that fails first above `request_rate`; None if nothing fails."""
        return None if self.bracket.high is None else self.trials[self.bracket.high].binding

    @cached_property
    def breaking_rate(self) -> Interval | None:
        """Where single runs lose the objective [req/s]: mean and interval; None if one never does."""
        num_seeds = len(next(iter(self.trials.values())).seeds)
        curves = [
            {rate: trial.margin_of_run(place) for rate, trial in self.trials.items()}
            for place in range(num_seeds)
        ]
        rates = [rate for curve in curves if (rate := crossing(curve)) is not None]
        return t_interval(rates, self.confidence) if num_seeds > 1 and len(rates) == num_seeds else None

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before taking the rate for true."""
        return list(self._warnings())

    @cached_property
    def curve(self) -> pd.DataFrame:
        """One row per rate tried: shares of good requests with interval, latencies, margin, stability."""
        import pandas as pd

        return pd.DataFrame([self._curve_row(trial) for trial in self.trials.values()])

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per rate, seed and criterion: the share of good requests, and what share is needed."""
        import pandas as pd

        rows = [
            {
                "request_rate": trial.request_rate,
                "seed": seed,
                "criterion": criterion,
                "share": row["shares"][criterion],
                "needed": needed,
            }
            for trial in self.trials.values()
            for seed, row in zip(trial.seeds, trial.rows, strict=True)
            for criterion, needed in self.objective.needed.items()
        ]
        return pd.DataFrame(rows)

    def summary(self) -> dict[str, Any]:
        """Returns the scalars, None where unknown."""
        breaking = self.breaking_rate
        return {
            "scenario_name": self.scenario_name,
            "slo": [
                {"metric": term.metric, "percentile": term.percent, "limit_ms": term.limit_ms}
                for term in self.objective.terms
            ],
            "attainment": self.objective.attainment,
            "confidence": self.confidence,
            "seeds": list(next(iter(self.trials.values())).seeds),
            "request_rate": self.request_rate,
            "field": self.knob.path,
            "field_value": self.knob.setting(self.request_rate),
            "fails_at_request_rate": self.bracket.high,
            "breaking_rate": None if breaking is None else breaking._asdict(),
            "binding": self.binding,
            "num_gpus": self.fleet.num_gpus,
            "request_rate_per_gpu": self.request_rate_per_gpu,
            "usd_per_hour": self.fleet.usd_per_hour,
            "prices": dict(self.fleet.sources),
            "requests_per_usd": self.requests_per_usd,
            "output_throughput": self.output_throughput,
            "usd_per_million_output_tokens": self.usd_per_million_output_tokens,
            "warnings": self.warnings,
        }

    def _curve_row(self, trial: Trial) -> dict[str, Any]:
        row: dict[str, Any] = {"request_rate": trial.request_rate}
        for criterion in self.objective.needed:
            interval = t_interval(trial.shares(criterion), self.confidence)
            row |= {f"{criterion}_share": interval.mean, f"{criterion}_share_low": interval.low}
            row[f"{criterion}_share_high"] = interval.high
        for term in self.objective.terms:
            row[f"{term.name}_ms"] = trial.percentile_ms(term.name)
        return row | {
            "request_throughput": trial.mean("request_throughput"),
            "output_throughput": trial.mean("output_throughput"),
            "mean_in_system": trial.mean("mean_in_system"),
            "growth": trial.growth,
            "is_unstable": trial.is_unstable,
            "margin": trial.margin,
            "is_met": trial.is_met,
        }

    def _warnings(self) -> Iterator[str]:
        if self.bracket.low is None:
            lowest = next(iter(self.trials.values()))
            why = ", though requests hardly ever meet there" if lowest.is_idle else ""
            yield f"the SLO is not kept even at {lowest.request_rate:g} req/s{why}: {lowest.binding} fails"
        if self.bracket.high is None:
            yield "the SLO is kept at every rate tried: take more requests, or tighter limits"
        if self.best is not None and self.best.is_unstable:
            yield (
                f"at {self.request_rate:g} req/s requests stay {self.best.growth:.0%} longer late in the run "
                "than early: the system is unstable, or the run too short; a longer one finds a lower rate"
            )
        if self.knob.is_recorded:
            yield "a recorded trace is played as it is, once: there is no confidence interval"
        if self.fleet.unpriced:
            yield f"no price is shipped for {', '.join(self.fleet.unpriced)}: give --price"
