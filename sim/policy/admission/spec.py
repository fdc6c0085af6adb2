"""The `admission:` part of a scenario: who may send how much, and who goes first when replicas are busy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ...spec import Spec


class TenantSpec(Spec):
    """One tenant's share and limits; requests name their tenant by its place in the list."""

    name: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0, description="Share of the tokens served while tenants compete.")
    priority: int | None = Field(
        None, description="Class of all its requests, lower first; by default each request's own priority."
    )
    requests_per_s: float | None = Field(None, gt=0, description="Rate limit; more are refused.")
    burst_requests: float = Field(1.0, ge=1, description="Requests that may come at once.")
    tokens_per_s: float | None = Field(
        None, gt=0, description="Rate limit on prompt tokens plus the answer's limit; more are refused."
    )
    burst_tokens: float | None = Field(
        None, gt=0, description="Tokens that may come at once; by default those of 60 s."
    )
    max_queued: int | None = Field(None, ge=1, description="Requests of this tenant that may queue.")
    ttft_slo_ms: float | None = Field(None, gt=0, description="Its deadline, for `order: deadline`.")


class AdmissionSpec(Spec):
    """A gate in front of the router: rate limits, then a queue while the replicas have enough."""

    tenants: tuple[TenantSpec, ...] = Field(
        (TenantSpec(name="default"),),
        min_length=1,
        description="Requests of other tenants count as the last.",
    )
    max_outstanding_per_replica: int | None = Field(
        None,
        ge=1,
        description="Queue what exceeds this times the serving replicas; by default nothing queues.",
    )
    order: Literal["fifo", "fair", "deadline"] = Field(
        "fifo",
        description="Within a priority class: as they came; by tenants' weights (deficit round robin); or "
        "the earliest deadline for the first token.",
    )
    quantum_tokens: int = Field(2048, ge=1, description="fair: tokens per turn of a tenant of weight 1.")
    drops_late: bool = Field(False, description="deadline: refuse who has missed it already in the queue.")
    max_queued: int | None = Field(None, ge=1, description="Refuse more than this many that queue.")
    queue_timeout_s: float | None = Field(None, gt=0, description="Refuse who has queued this long.")

    @model_validator(mode="after")
    def _has_a_queue(self) -> Self:
        names = [tenant.name for tenant in self.tenants]
        if len(set(names)) < len(names):
            raise ValueError("two tenants have one name; names must differ")
        if self.max_outstanding_per_replica is None:
            given = {"order", "max_queued", "queue_timeout_s", "drops_late"} & self.model_fields_set
            if given:
                raise ValueError(f"{min(given)} needs max_outstanding_per_replica: without it nothing queues")
        if self.order == "deadline" and all(tenant.ttft_slo_ms is None for tenant in self.tenants):
            raise ValueError("order: deadline needs a tenant's ttft_slo_ms")
        return self
