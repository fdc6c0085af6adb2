"""The points of a study: what each is, and what its name depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simllm.errors import ScenarioError
from simllm.sim.study import points as points_module
from simllm.sim.study.points import Point, expand
from simllm.sim.study.study_file import load_study, parse_study

from .small_study import study, write


def points(folder: Path = Path(), **fields: Any) -> list[Point]:
    return expand(parse_study(study(**fields)), folder)


def test_seeds_change_fastest_and_count_up_from_the_scenario_s() -> None:
    found = points(set={"seed": 7}, seeds=2)
    assert [(point.values, point.seed) for point in found] == [((10,), 7), ((10,), 8), ((20,), 7), ((20,), 8)]
    assert [point.seed for point in points(axes=[], seeds=[5, 3])] == [5, 3]


def test_a_point_s_name_depends_on_what_its_result_does(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [point.digest for point in points()]
    assert len(set(names)) == 4
    assert [point.digest for point in points()] == names
    # Written in another way, with a default spelled out, in another order: the same scenarios.
    assert [point.digest for point in points(set={"pools.0.replicas": 1})] == names
    assert not {point.digest for point in points(set={"pools.0.replicas": 2})} & set(names)
    monkeypatch.setattr(points_module, "__version__", "99.0")
    assert not {point.digest for point in points()} & set(names)


def test_a_point_s_name_depends_on_the_content_of_its_files(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    fields = {"set": {"workload": {"kind": "azure", "path": "trace.csv"}}, "axes": []}
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    trace.write_text(f"{header}2023-11-16 18:15:46,374,44\n")
    before = [point.digest for point in points(tmp_path, **fields)]
    trace.write_text(f"{header}2023-11-16 18:15:46,375,44\n")
    assert [point.digest for point in points(tmp_path, **fields)] != before


def test_a_combination_that_makes_no_scenario_is_a_point_with_its_error() -> None:
    axis = {"path": "pools.0.replicas", "values": [1, 0]}
    good, bad = points(axes=[axis], seeds=1)
    assert good.payload is not None and good.error is None
    assert bad.payload is None
    assert bad.error == "$.pools[0].replicas: must be greater than or equal to 1 (got 0)"


def test_a_study_of_which_no_point_makes_a_scenario_is_wrong() -> None:
    axis = {"path": "pools.0.replica", "values": [1, 2]}
    with pytest.raises(ScenarioError, match=r"replica: unknown field; did you mean 'replicas'\?"):
        points(axes=[axis])


def test_values_may_be_whole_parts_and_small_numbers() -> None:
    scheduler = {"kind": "vllm_v1", "max_num_seqs": 7}
    (point,) = points(axes=[{"path": "pools.0.scheduler", "values": [scheduler]}], seeds=1)
    assert point.payload is not None
    assert point.payload["scenario"]["pools"][0]["scheduler"]["max_num_seqs"] == 7
    tiny = {"path": "pools.0.engine_overhead.step_s", "values": [1e-05]}  # which YAML would take for text
    (point,) = points(axes=[tiny], seeds=1)
    assert point.payload is not None
    assert point.payload["scenario"]["pools"][0]["engine_overhead"]["step_s"] == 1e-05


def test_a_scenario_is_a_name_a_path_beside_the_study_or_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        (points_module.Path(__file__).parents[2] / "scenarios/01-first-run.yaml").read_text()
    )
    short = {"workload.num_requests": 10}
    by_name = points(tmp_path, scenario="01-first-run", set=short)
    by_path = points(tmp_path, scenario="own.yaml", set=short)
    assert [point.digest for point in by_name] == [point.digest for point in by_path]
    with pytest.raises(ScenarioError, match=r"01-frist-run.*did you mean '01-first-run'"):
        points(tmp_path, scenario="01-frist-run")


def test_a_study_s_file_takes_overrides_of_its_scenario(tmp_path: Path) -> None:
    loaded, folder = load_study(write(tmp_path, set={"seed": 3}), ["seed=5", "name=other"])
    assert loaded.set == {"seed": 5, "name": "other"}
    assert folder == tmp_path
    with pytest.raises(ScenarioError, match=r"^no-such: no such file or shipped study"):
        load_study("no-such")
    with pytest.raises(ScenarioError, match=r"^--set: must be path.to.field=value \(got 'seed'\)$"):
        load_study(tmp_path / "study.yaml", ["seed"])
