"""Scenarios: what is said about wrong ones, and how right ones are written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from simllm.errors import ScenarioError
from simllm.sim.scenario import Scenario, load_scenario, lock, parse_scenario, sha256_of

from .small import scenario, small, write


def problems(*overrides: str) -> list[str]:
    """Returns what is said about the small scenario with `overrides`."""
    with pytest.raises(ScenarioError) as caught:
        scenario(*overrides)
    return [str(problem) for problem in caught.value.problems]


def test_all_problems_are_named_at_once_with_path_value_and_nearest_choice() -> None:
    assert problems(
        "sede=1",
        "workload.arrivals.request_rate=-2",
        "pools.0.replicas=0",
        "pools.0.kv.dtype=fp9",
        "pools.0.scheduler.max_num_seq=4",
        "router.kind=roundrobin",
    ) == [
        "$.workload.arrivals.request_rate: must be greater than 0 (got -2)",
        "$.pools[0].replicas: must be greater than or equal to 1 (got 0)",
        "$.pools[0].kv.dtype: must be one of auto, bf16, fp16, fp8, int8, int4 (got 'fp9'); "
        "did you mean 'fp8'?",
        "$.pools[0].scheduler.max_num_seq: unknown field; did you mean 'max_num_seqs'?",
        "$.router.kind: must be one of round_robin, random, least_outstanding, least_kv, power_of_two, "
        "session_affinity, prefix_aware, weighted, conductor (got 'roundrobin'); "
        "did you mean 'round_robin'?",
        "$.sede: unknown field; did you mean 'seed'?",
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=-1", "$.seed: must be greater than or equal to 0 (got -1)"),
        ("seed=often", "$.seed: must be a valid integer, unable to parse string as an integer (got 'often')"),
        ("pools=[]", "$.pools: must have at least one item"),
        ("pools=many", "$.pools: must be a list (got 'many')"),
        ("pools.0=llama", "$.pools[0]: must be a mapping of fields (got 'llama')"),
        ("pools.0={device: h100-sxm}", "$.pools[0].model: is required"),
        ("workload={num_requests: 3}", "$.workload.kind: is required"),
        ("workload.arrivals.kind=posson", "did you mean 'poisson'?"),
        ("workload.prompt_tokens.kind=normal", "$.workload.prompt_tokens.kind: must be one of"),
        ("workload.num_requests=null", "$.workload: give either num_requests or duration_s"),
        ("slo.ttft_ms=.inf", "$.slo.ttft_ms: must be a finite number"),
        ("pools.0.kv.block_size=0", "$.pools[0].kv.block_size: must be greater than or equal to 1 (got 0)"),
        (
            "pools.0.scheduler={max_num_seqs: 99, max_num_batched_tokens: 9}",
            "$.pools[0].scheduler: max_num_batched_tokens (9) must be at least max_num_seqs (99)",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_it_holds(override: str, expected: str) -> None:
    (said,) = problems(override)
    assert expected in said


def test_pools_of_one_name_are_told_apart() -> None:
    pool = "{model: llama-3.1-8b, device: h100-sxm}"
    assert problems(f"pools=[{pool}, {pool}]") == ["$: two pools are called 'main'; names must differ"]


def test_a_field_that_exists_nowhere_near_lists_those_that_do() -> None:
    (said,) = problems("slo.zzz=1")
    assert said == "$.slo.zzz: unknown field; known here: ttft_ms, tpot_ms, e2el_ms"


def test_an_empty_mapping_lacks_its_two_parts() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario({})
    assert str(caught.value) == "$.workload: is required\n$.pools: is required"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a: [1\nb: 2", "bad.yaml:2: is not valid YAML: expected ',' or ']', but got ':'"),
        (b"a: \xff", "bad.yaml: is not valid YAML"),
        (b"", "bad.yaml: must be a mapping with `workload` and `pools`"),
        (b"- 1", "bad.yaml: must be a mapping with `workload` and `pools`"),
        (b"!!python/object/apply:os.getcwd []", "bad.yaml:1: is not valid YAML: could not determine"),
    ],
)
def test_a_file_that_holds_no_scenario_is_named(text: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert str(caught.value).startswith(str(tmp_path / said))


def test_a_missing_file_names_the_nearest_shipped_scenario() -> None:
    with pytest.raises(ScenarioError, match=r"^01-first: no such file or shipped .*'01-first-run'\?$"):
        load_scenario("01-first")


def test_a_shipped_scenario_is_found_by_name_and_a_file_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_scenario("01-first-run")[0].name == "first-run"
    write(tmp_path).rename(tmp_path / "01-first-run")
    assert load_scenario("01-first-run") == (scenario(), tmp_path)


def test_overrides_are_validated_like_the_file(tmp_path: Path) -> None:
    loaded, _ = load_scenario(write(tmp_path), ["pools.0.scheduler.max_num_seqs=64"])
    assert loaded.pools[0].scheduler.max_num_seqs == 64
    with pytest.raises(ScenarioError, match=r"\$\.pools\[0\]\.replicas: .* \(got 0\)"):
        load_scenario(write(tmp_path), ["pools.0.replicas=0"])


def test_a_scenario_never_changes() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        scenario().seed = 3  # type: ignore[misc]


def test_the_lock_is_the_scenario_with_every_default_written_out() -> None:
    locked = yaml.safe_load(lock(scenario(), Path()))
    assert locked["pools"][0]["scheduler"]["max_num_batched_tokens"] == 8192
    assert locked["workload"]["arrivals"]["rescale_to_rate"] is False
    assert parse_scenario(locked) == scenario()
    assert set(locked) == set(Scenario.model_fields)


def test_the_lock_of_a_lock_is_the_same_text() -> None:
    text = lock(scenario("seed=7", "slo.ttft_ms=200"), Path())
    assert lock(parse_scenario(yaml.safe_load(text)), Path("/elsewhere")) == text


def test_paths_in_a_lock_hold_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    described = parse_scenario(small("workload={kind: azure, path: trace.csv}", "pools.0.model=config.json"))
    locked = yaml.safe_load(lock(described, tmp_path))
    assert locked["workload"]["path"] == str(tmp_path / "trace.csv")
    assert locked["pools"][0]["model"] == str(tmp_path / "config.json")


def test_a_resolved_scenario_is_named_by_its_digest() -> None:
    one, same, other = (sha256_of(lock(s, Path())) for s in (scenario(), scenario(), scenario("seed=1")))
    assert (one == same, one == other, len(one)) == (True, False, 64)
