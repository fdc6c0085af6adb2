"""`--set path.to.field=value`."""

from __future__ import annotations

from typing import Any

import pytest

from simllm.errors import ScenarioError
from simllm.sim.overrides import apply_overrides


def data() -> dict[str, Any]:
    return {"name": "a", "pools": [{"replicas": 1}, {"replicas": 2}]}


def test_a_field_of_a_list_s_item_is_set() -> None:
    changed = apply_overrides(data(), ["pools.1.replicas=8"])
    assert changed == {"name": "a", "pools": [{"replicas": 1}, {"replicas": 8}]}


def test_an_item_is_replaced_as_a_whole() -> None:
    assert apply_overrides(data(), ["pools.0={model: x}"])["pools"][0] == {"model": "x"}


def test_fields_on_the_way_are_made() -> None:
    assert apply_overrides(data(), ["pools.0.kv.dtype=fp8"])["pools"][0]["kv"] == {"dtype": "fp8"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("a=b", "a=b"),
        ("[1, 2]", [1, 2]),
        ("{kind: fixed, tokens: 3}", {"kind": "fixed", "tokens": 3}),
    ],
)
def test_the_value_is_yaml(text: str, value: object) -> None:
    assert apply_overrides({}, [f"x={text}"]) == {"x": value}


def test_of_two_overrides_of_one_field_the_last_wins() -> None:
    assert apply_overrides({}, ["x=1", "x=2"]) == {"x": 2}


def test_the_original_is_left_alone() -> None:
    original = data()
    apply_overrides(original, ["pools.0.replicas=8", "new.field=1"])
    assert original == data()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pools", "--set: must be path.to.field=value (got 'pools')"),
        ("=3", "--set: must be path.to.field=value (got '=3')"),
        ("pools.2.replicas=1", "--set pools.2.replicas: '2' is not one of the 2 items, which count from 0"),
        (
            "pools.-1.replicas=1",
            "--set pools.-1.replicas: '-1' is not one of the 2 items, which count from 0",
        ),
        ("pools.².replicas=1", "--set pools.².replicas: '²' is not one of the 2 items, which count from 0"),
        ("pools.all=1", "--set pools.all: 'all' is not one of the 2 items, which count from 0"),
        ("name.first=1", "--set name.first: name is a plain value, 'first' can't be set in it"),
        ("name=[1", "--set name: has a value that is not valid YAML (got '[1')"),
    ],
)
def test_what_cannot_be_set_is_said(override: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        apply_overrides(data(), [override])
    assert str(caught.value) == message


def test_all_overrides_that_fail_are_named_at_once() -> None:
    with pytest.raises(ScenarioError) as caught:
        apply_overrides(data(), ["nothing", "name=b", "pools.9.replicas=1"])
    assert [problem.path for problem in caught.value.problems] == ["--set", "--set pools.9.replicas"]
