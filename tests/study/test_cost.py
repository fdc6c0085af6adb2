"""What the GPUs of a scenario cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from sim.small import scenario

from simllm.errors import ScenarioError
from simllm.hwmodels.prices import shipped_prices
from simllm.hwmodels.profile import load_profile
from simllm.sim.deployment import deploy_all
from simllm.sim.study.cost import Fleet, fleet_of, parse_prices


def fleet(*overrides: str, **prices: float) -> Fleet:
    given = {device.replace("_", "-"): price for device, price in prices.items()}
    return fleet_of(deploy_all(scenario(*overrides).pools, Path()), given)


def test_every_shipped_price_is_of_a_shipped_device_and_says_where_it_was_read() -> None:
    for device, price in shipped_prices().items():
        assert load_profile(device).device.name == device
        assert price.source.startswith("https://")
        assert price.date.year >= 2026


def test_a_fleet_costs_its_gpus() -> None:
    # Three replicas on two GPUs each.
    six = fleet("pools.0.replicas=3", "pools.0.parallel.tp=2", h100_sxm=2.5)
    assert (six.num_gpus, six.usd_per_hour) == (6, 15)
    assert fleet().usd_per_hour == shipped_prices()["h100-sxm"].usd_per_gpu_hour
    assert "https://" in fleet().sources["h100-sxm"]


def test_a_device_without_a_price_leaves_the_cost_open() -> None:
    open_cost = fleet("pools.0.device=h20")
    assert (open_cost.usd_per_hour, open_cost.unpriced) == (None, ["h20"])
    assert fleet_of(deploy_all(scenario("pools.0.device=h20").pools, Path()), {"*": 1.5}).usd_per_hour == 1.5


def test_prices_are_given_for_all_or_by_device() -> None:
    assert parse_prices(["2.49", "h100-sxm=3"]) == {"*": 2.49, "h100-sxm": 3}


@pytest.mark.parametrize("text", ["free", "0", "-1", "h100-sxm=", "inf"])
def test_a_price_is_a_positive_number(text: str) -> None:
    with pytest.raises(ScenarioError, match="--price: must be USD per GPU-hour"):
        parse_prices([text])


def test_a_price_of_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"'h100-sx'.; did you mean 'h100-sxm'"):
        fleet(h100_sx=2.0)
