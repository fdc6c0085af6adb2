"""When requests, or sessions, arrive: the `arrivals:` of a workload, as validated data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..spec import Spec

RequestRate = Annotated[float, Field(gt=0, description="Mean arrivals per second.")]
Burstiness = Annotated[
    float,
    Field(gt=0, description="Shape of the Gamma gaps: 1 is Poisson, less is burstier, more is steadier."),
]
RescaleToRate = Annotated[
    bool,
    Field(
        description="Stretch the instants so that the last of n is at n / request_rate, as vLLM bench does."
    ),
]


class PoissonArrivals(Spec):
    """Independent arrivals: exponential gaps."""

    kind: Literal["poisson"] = "poisson"
    request_rate: RequestRate
    rescale_to_rate: RescaleToRate = False


class GammaArrivals(Spec):
    """Gamma gaps, whose coefficient of variation is 1 / sqrt(burstiness)."""

    kind: Literal["gamma"] = "gamma"
    request_rate: RequestRate
    burstiness: Burstiness
    rescale_to_rate: RescaleToRate = False


class ConstantArrivals(Spec):
    """Equal gaps, the first request at 0."""

    kind: Literal["constant"] = "constant"
    request_rate: RequestRate


class RampArrivals(Spec):
    """A rate that goes from one value to another over the span of the workload.

    With num_requests the span is as long as that many requests take on average; the rate then stays.
    """

    kind: Literal["ramp"] = "ramp"
    strategy: Literal["linear", "exponential"] = "linear"
    start_request_rate: RequestRate
    end_request_rate: RequestRate
    burstiness: Burstiness = 1.0

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        if self.start_request_rate == self.end_request_rate:
            raise ValueError("a ramp needs two different rates; for one rate use poisson or gamma")
        return self


class BurstArrivals(Spec):
    """All requests at once, at 0."""

    kind: Literal["burst"] = "burst"


class ClosedLoopArrivals(Spec):
    """num_clients clients; each sends its next request the moment its last one is answered."""

    kind: Literal["closed_loop"] = "closed_loop"
    num_clients: int = Field(ge=1)


ArrivalSpec = Annotated[
    PoissonArrivals | GammaArrivals | ConstantArrivals | RampArrivals | BurstArrivals | ClosedLoopArrivals,
    Field(discriminator="kind"),
]
