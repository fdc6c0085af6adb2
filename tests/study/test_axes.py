"""From axes to combinations."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.errors import ScenarioError
from simllm.sim.study.axes import columns, combinations, paths
from simllm.sim.study.study_file import parse_study

from .small_study import study


def values_of(*axes: dict[str, Any]) -> list[tuple[Any, ...]]:
    return list(combinations(parse_study(study(axes=list(axes))).axes))


def test_every_combination_is_a_point_and_the_last_axis_changes_fastest() -> None:
    axes = ({"path": "a", "values": [1, 2]}, {"path": "b", "values": ["x", "y", "z"]})
    assert values_of(*axes) == [(1, "x"), (1, "y"), (1, "z"), (2, "x"), (2, "y"), (2, "z")]


def test_without_axes_there_is_one_point() -> None:
    assert values_of() == [()]


def test_zipped_axes_change_together() -> None:
    zipped = {"zip": [{"path": "a", "values": [1, 2]}, {"path": "b", "name": "tp", "values": [8, 4]}]}
    assert values_of(zipped, {"path": "c", "values": [0, 1]}) == [(1, 8, 0), (1, 8, 1), (2, 4, 0), (2, 4, 1)]
    axes = parse_study(study(axes=[zipped])).axes
    assert (columns(axes), paths(axes)) == (("a", "tp"), ("a", "b"))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"range": {"start": 1, "stop": 7, "step": 2}}, [1, 3, 5, 7]),
        ({"range": {"start": 1, "stop": 8, "step": 2}}, [1, 3, 5, 7]),
        # Steps of a tenth come out as typed, though 0.1 + 2 * 0.1 is 0.30000000000000004.
        ({"range": {"start": 0.1, "stop": 0.4, "step": 0.1}}, [0.1, 0.2, 0.3, 0.4]),
        ({"range": {"start": 0, "stop": 1, "num": 5}}, [0, 0.25, 0.5, 0.75, 1]),
        ({"log_range": {"start": 1, "stop": 8, "num": 4}}, [1.0, 2.0, 4.0, 8.0]),
        # 16 x 2^(i/2): 16, 22.6, 32; and 1, 1.26, 1.59, 2 of which two are 1 and two are 2.
        ({"log_range": {"start": 16, "stop": 32, "num": 3, "integer": True}}, [16, 23, 32]),
        ({"log_range": {"start": 1, "stop": 2, "num": 4, "integer": True}}, [1, 2]),
    ],
)
def test_ranges_hold_both_ends(given: dict[str, Any], wanted: list[float]) -> None:
    found = [value for (value,) in values_of({"path": "a", **given})]
    assert found == wanted
    assert [type(value) for value in found] == [type(value) for value in wanted]


@given(st.floats(1e-3, 1e3), st.floats(1.001, 1e3), st.integers(2, 30))
def test_a_log_range_rises_by_one_factor(start: float, ratio: float, num: int) -> None:
    stop = start * ratio
    spec = {"path": "a", "log_range": {"start": start, "stop": stop, "num": num}}
    found = [value for (value,) in values_of(spec)]
    assert len(found) == num
    assert found[0] == pytest.approx(start) and found[-1] == pytest.approx(stop)
    for one, next_one in pairwise(found):
        assert next_one / one == pytest.approx(ratio ** (1 / (num - 1)), rel=1e-9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"axes": [{"path": "a"}]}, r"^\$.axes\[0\]: give one of values, range, log_range$"),
        ({"axes": [{"values": [1]}]}, r"^\$.axes\[0\]: give a path, or zip$"),
        ({"axes": [{"path": "seed", "values": [1]}]}, "seeds are no axis; use the study's `seeds`"),
        (
            {"axes": [{"path": "a", "value": [1]}]},
            r"^\$.axes\[0\].value: unknown field; did you mean 'values'\?$",
        ),
        (
            {"axes": [{"path": "a", "range": {"start": 2, "stop": 1, "num": 2}}]},
            "start must be less than stop",
        ),
        ({"axes": [{"path": "a", "range": {"start": 1, "stop": 2}}]}, "give either step or num"),
        ({"axes": [{"path": "a", "values": [1]}, {"path": "a", "values": [2]}]}, "two axes are called 'a'"),
        ({"seeds": 0}, r"^\$.seeds: must be greater than or equal to 1"),
        ({"seeds": [0, -1]}, r"^\$.seeds\[1\]: must be greater than or equal to 0"),
        ({"scenari": "x"}, r"^\$.scenari: unknown field; did you mean 'scenario'\?$"),
    ],
)
def test_a_wrong_study_is_one_line_that_says_where(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message) as caught:
        parse_study(study(**fields))
    assert "\n" not in str(caught.value)


def test_zipped_axes_of_different_length_are_refused() -> None:
    zipped = {"zip": [{"path": "a", "values": [1, 2]}, {"path": "b", "values": [1]}]}
    with pytest.raises(ScenarioError, match=r"^\$.axes\[1\].zip: axes differ in length: 2, 1$"):
        values_of({"path": "c", "values": [0]}, zipped)
