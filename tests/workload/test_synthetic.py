from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from simllm.errors import ScenarioError
from simllm.sim.request import ContentRun
from simllm.sim.workload import Demand

Build = Callable[..., Demand]


def synthetic(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": "synthetic",
        "num_requests": 1000,
        "arrivals": {"kind": "poisson", "request_rate": 10.0},
        "prompt_tokens": {"kind": "lognormal", "median_tokens": 500.0, "sigma": 1.0},
        "output_tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 300},
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def test_the_same_seed_gives_the_same_rows(build: Build, columns: Callable[[Demand], object]) -> None:
    assert columns(build(synthetic(), seed=4)) == columns(build(synthetic(), seed=4))
    assert columns(build(synthetic(), seed=4)) != columns(build(synthetic(), seed=5))


def test_changing_one_distribution_leaves_the_others_as_they_were(build: Build) -> None:
    plain, changed = build(synthetic()), build(synthetic(prompt_tokens={"kind": "fixed", "tokens": 9}))
    assert changed.prompt_tokens.tolist() == [9] * 1000
    assert changed.arrived_at.tolist() == plain.arrived_at.tolist()
    assert changed.output_tokens.tolist() == plain.output_tokens.tolist()


def test_a_closed_loop_has_clients_and_no_instants(build: Build) -> None:
    demand = build(synthetic(arrivals={"kind": "closed_loop", "num_clients": 8}))
    assert demand.num_clients == 8
    assert set(demand.arrived_at.tolist()) == {0.0}


def test_a_duration_instead_of_a_number(build: Build) -> None:
    demand = build(synthetic(num_requests=None, duration_s=100.0))
    assert len(demand) == pytest.approx(1000, abs=150)
    assert demand.arrived_at[-1] < 100.0


def test_no_request_at_all_is_an_error(build: Build) -> None:
    with pytest.raises(ScenarioError, match=r"workload.duration_s: no request arrives so soon \(got 1e-09\)"):
        build(synthetic(num_requests=None, duration_s=1e-9))


def test_a_shared_prefix_comes_before_the_prompt(build: Build) -> None:
    plain = build(synthetic())
    prefix = {"num_prefixes": 3, "prefix_tokens": {"kind": "fixed", "tokens": 64}}
    demand = build(synthetic(shared_prefix=prefix))
    assert demand.prompt_tokens.tolist() == (plain.prompt_tokens + 64).tolist()
    assert demand.contents is not None
    first = demand.contents[0]
    assert first is not None
    assert first[0] in [ContentRun(prefix_id, 64) for prefix_id in range(3)]
    # Ids 0, 1, 2 are prefixes; row 0's own part is named by the next one.
    assert first[1] == ContentRun(3, int(plain.prompt_tokens[0]))


def test_contents_cover_prompts_and_only_prefixes_are_shared(build: Build) -> None:
    prefix = {"num_prefixes": 3, "prefix_tokens": {"kind": "fixed", "tokens": 64}}
    demand = build(synthetic(shared_prefix=prefix))
    runs = [request.content or () for request in demand.requests()]
    covered = [sum(run.num_tokens for run in content) for content in runs]
    assert covered == demand.prompt_tokens.tolist()
    owners = Counter(run.content_id for content in runs for run in content)
    assert {content_id for content_id, count in owners.items() if count > 1} == {0, 1, 2}


def test_only_a_share_of_the_requests_has_a_prefix(build: Build) -> None:
    prefix = {"num_prefixes": 2, "prefix_tokens": {"kind": "fixed", "tokens": 64}, "share": 0.25}
    plain, demand = build(synthetic()), build(synthetic(shared_prefix=prefix))
    contents = list(demand.contents or ())
    assert sum(content is not None for content in contents) == pytest.approx(250, abs=60)
    grown = (demand.prompt_tokens - plain.prompt_tokens).tolist()
    assert grown == [0 if content is None else 64 for content in contents]


def test_popular_prefixes_follow_zipf(build: Build) -> None:
    prefix = {"num_prefixes": 2, "prefix_tokens": {"kind": "fixed", "tokens": 64}, "zipf_exponent": 1.0}
    demand = build(synthetic(num_requests=20_000, shared_prefix=prefix))
    first = Counter(content[0].content_id for content in demand.contents or () if content)
    # Weights 1 and 1/2.
    assert first[0] / 20_000 == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"duration_s": 5.0}, "give either num_requests or duration_s"),
        ({"num_requests": None}, "give either num_requests or duration_s"),
        (
            {"num_requests": None, "duration_s": 5.0, "arrivals": {"kind": "burst"}},
            "burst arrivals need num_requests",
        ),
        (
            {
                "num_requests": None,
                "duration_s": 5.0,
                "arrivals": {"kind": "poisson", "request_rate": 1, "rescale_to_rate": True},
            },
            "rescale_to_rate needs num_requests",
        ),
        (
            {"arrivals": {"kind": "ramp", "start_request_rate": 2, "end_request_rate": 2}},
            "two different rates",
        ),
        ({"arrivals": {"kind": "poison", "request_rate": 2}}, "'poison'"),
    ],
)
def test_contradicting_fields_are_refused(build: Build, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        build(synthetic(**changes))
    assert what in str(caught.value)


def test_a_million_requests_stay_small(build: Build) -> None:
    tracemalloc.start()
    demand = build(synthetic(num_requests=1_000_000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Three columns of eight bytes, and two more while one is drawn.
    assert len(demand) == 1_000_000
    assert peak_bytes < 60e6
