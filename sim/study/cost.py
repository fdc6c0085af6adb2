"""The GPUs of a scenario and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import Problem, ScenarioError, nearest_choice
from ...hwmodels.prices import shipped_prices
from ..deployment import Deployment

# The price of devices that have none of their own.
ANY_DEVICE = "*"


@dataclass(frozen=True, slots=True)
class Fleet:
    """GPUs by device, and what they cost together.

    usd_per_hour: None if the price of a device is not known. sources: where each price is from, by device.
    """

    gpus: Mapping[str, int]
    usd_per_hour: float | None
    sources: Mapping[str, str]

    @property
    def num_gpus(self) -> int:
        """GPUs of all pools."""
        return sum(self.gpus.values())

    @property
    def unpriced(self) -> list[str]:
        """Devices without a price."""
        return [device for device in self.gpus if device not in self.sources]


def fleet_of(deployments: Sequence[Deployment], prices: Mapping[str, float]) -> Fleet:
    """Returns the GPUs of all pools. prices: USD per GPU-hour by device, before the shipped ones.

    Raises: ScenarioError for a price of a device that the scenario has not.
    """
    gpus: dict[str, int] = {}
    for deployment in deployments:
        device = deployment.profile.device.name
        gpus[device] = gpus.get(device, 0) + deployment.config.replicas * deployment.num_gpus
    for device in prices:
        if device != ANY_DEVICE and device not in gpus:
            what = f"is no device of this scenario; it has {', '.join(gpus)}"
            raise ScenarioError([Problem("--price", what, device, nearest_choice(device, gpus))])
    found = {device: priced for device in gpus if (priced := _price(device, prices)) is not None}
    is_known = len(found) == len(gpus)
    total = sum(gpus[device] * usd for device, (usd, _) in found.items())
    return Fleet(gpus, total if is_known else None, {device: source for device, (_, source) in found.items()})


def _price(device: str, prices: Mapping[str, float]) -> tuple[float, str] | None:
    """Returns the price of a GPU-hour [USD] and in words where it is from."""
    given = prices.get(device, prices.get(ANY_DEVICE))
    if given is not None:
        return given, f"{given:g} USD per GPU-hour, as given"
    shipped = shipped_prices().get(device)
    if shipped is None:
        return None
    words = (
        f"{shipped.usd_per_gpu_hour:g} USD per GPU-hour ({shipped.offer}, {shipped.source}, {shipped.date})"
    )
    return shipped.usd_per_gpu_hour, words


def parse_prices(texts: Sequence[str]) -> dict[str, float]:
    """Returns the prices that `2.49` (of all devices) and `h100-sxm=2.49` stand for.

    Raises: ScenarioError for anything but a positive number.
    """
    prices: dict[str, float] = {}
    for text in texts:
        device, separator, number = text.rpartition("=")
        try:
            price = float(number)
        except ValueError:
            price = 0.0
        if not 0 < price < float("inf"):
            raise ScenarioError([Problem("--price", "must be USD per GPU-hour: 2.49 or h100-sxm=2.49", text)])
        prices[device if separator else ANY_DEVICE] = price
    return prices
