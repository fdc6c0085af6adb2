"""What a GPU costs by the hour: the shipped list, each price with its offer, source and date."""

from __future__ import annotations

import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from .profile_file import read_yaml

PRICES = Path(__file__).parent / "prices.yaml"


class Price(BaseModel):
    """One offer of one GPU: USD per hour, where it was read and when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    usd_per_gpu_hour: float = Field(gt=0)
    offer: str
    source: str
    date: datetime.date


def shipped_prices() -> dict[str, Price]:
    """Returns the shipped prices by the name of the device."""
    return TypeAdapter(dict[str, Price]).validate_python(read_yaml(PRICES))
