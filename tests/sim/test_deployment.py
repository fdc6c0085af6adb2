"""What a pool comes to: whose kernels price its steps, and whose constants its engine has."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import simllm
from simllm.errors import ScenarioError
from simllm.hwmodels.engine_profile import EngineOverhead, load_engine_profile
from simllm.hwmodels.roofline_step import RooflineStepModel
from simllm.hwmodels.step import Chunk, StepShape
from simllm.sim.deployment import deploy
from simllm.sim.pool import PoolConfig
from simllm.sim.run import simulate
from simllm.sim.scenario import SHIPPED_SCENARIOS, load_scenario
from simllm.sim.workload.paths import FOLDER_VARIABLES

from .small import scenario

CALIBRATED = "pools.0.device=h200-sxm"
SHIPPED = load_engine_profile("vllm-0.22-h200-sxm").overhead()
SHORT = {"num_requests": "40", "num_sessions": "10", "duration_s": "5"}

each_scenario = pytest.mark.parametrize(
    "path", sorted(SHIPPED_SCENARIOS.glob("*.yaml")), ids=lambda p: p.stem
)


def step_model(*overrides: str, folder: Path = Path()) -> RooflineStepModel:
    """Returns what prices the steps of the small scenario's pool."""
    model = deploy(scenario(*overrides).pools[0], folder).step_model
    assert isinstance(model, RooflineStepModel)
    return model


def duration_s(model: RooflineStepModel) -> float:
    return model.predict(StepShape((Chunk(2000, 0),), (), 2000, 1, uses_cuda_graph=False)).duration_s


def shortened(path: Path) -> list[str]:
    """Returns the overrides that leave a few requests of a shipped scenario."""
    text = yaml.safe_load(path.read_text(encoding="utf-8"))["workload"]
    place = "workload.fallback" if "fallback" in text else "workload"
    sizes = text.get("fallback", text)
    return [f"{place}.{name}={short}" for name, short in SHORT.items() if name in sizes]


@each_scenario
@pytest.mark.parametrize("kernels", ["triton", "vllm"])
def test_every_shipped_scenario_runs_on_measured_kernels(
    path: Path, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in FOLDER_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    overrides = [*shortened(path), CALIBRATED, f"pools.0.kernels={kernels}"]
    described, folder = load_scenario(path, overrides)
    assert deploy(described.pools[0], folder).profile.kind == "calibrated"
    result = simulate(described, base_dir=folder)
    assert 0 < len(result.requests) < 500
    assert result.summary()["completed"] == len(result.requests)


def test_other_kernels_take_another_time() -> None:
    names = ("vllm", "triton", "{gemm: cublas}", "{gemm: triton}")
    vllm, ours, mixed, spelled_out = (
        duration_s(step_model(CALIBRATED, f"pools.0.kernels={name}")) for name in names
    )
    assert len({vllm, ours, mixed}) == 3
    assert spelled_out == ours


def test_a_datasheet_device_has_no_kernels_to_choose_from() -> None:
    datasheet = "pools.0.device=datasheet:h200-sxm"
    vllm, ours = (step_model(datasheet, f"pools.0.kernels={name}") for name in ("vllm", "triton"))
    assert duration_s(vllm) == duration_s(ours)


@pytest.mark.parametrize("device", ["h200-sxm", "datasheet:h200-sxm", "h100-sxm"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kernels=vlm", r"$.pools[0].kernels: must be one of vllm, triton (got 'vlm'); did you mean 'vllm'?"),
        ("kernels=3", "$.pools[0].kernels: must be one of vllm, triton (got 3)"),
        ("kernels={gemm: 3}", "$.pools[0].kernels.gemm: must be a valid string (got 3)"),
        ("kernels={gem: cublas}", "$.pools[0].kernels: kernels: 'gem' is no operation; did you mean 'gemm'?"),
        (
            "kernels={gemm: cublass}",
            "$.pools[0].kernels: kernels: 'cublass' is no implementation; did you mean 'cublas'?",
        ),
        (
            "engine_profile=vllm-0.22-h200",
            "$.pools[0].engine_profile: vllm-0.22-h200: no such engine profile, neither a file nor a shipped "
            "name; did you mean 'vllm-0.22-h200-sxm'?",
        ),
    ],
)
def test_a_wrong_name_is_one_line_with_its_path(device: str, override: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        step_model(f"pools.0.device={device}", f"pools.0.{override}")
    assert str(caught.value) == message


def test_a_calibrated_device_has_the_constants_of_its_engine() -> None:
    assert step_model(CALIBRATED).overhead == SHIPPED
    assert step_model("pools.0.device=datasheet:h200-sxm").overhead == EngineOverhead()
    assert step_model("pools.0.device=h100-sxm").overhead == EngineOverhead()


def test_a_profile_of_one_s_own_has_the_constants_of_its_device(tmp_path: Path) -> None:
    shipped = Path(simllm.__file__).parent / "hwmodels" / "profiles" / "h200-sxm.yaml"
    text = shipped.read_text(encoding="utf-8").replace("name: h200-sxm", "name: mine", 1)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert step_model("pools.0.device=mine.yaml", folder=tmp_path).overhead == SHIPPED


def test_a_pool_can_name_its_engine_s_constants() -> None:
    named = step_model("pools.0.device=h100-sxm", "pools.0.engine_profile=vllm-0.22-h200-sxm")
    assert named.overhead == SHIPPED


def test_a_file_of_constants_lies_beside_the_scenario(tmp_path: Path) -> None:
    profile = load_engine_profile("vllm-0.22-h200-sxm").model_dump(mode="json")
    profile["constants"] = {"step_s": {"value": 0.5e-3, "low": 0.4e-3, "high": 0.6e-3}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    model = step_model(CALIBRATED, "pools.0.engine_profile=mine.yaml", folder=tmp_path)
    assert model.overhead == EngineOverhead(step_s=0.5e-3)


def test_what_a_pool_says_of_its_engine_comes_first() -> None:
    own = step_model(CALIBRATED, "pools.0.engine_overhead={step_s: 0.001, eager_launch_s: 0.0}").overhead
    assert (own.step_s, own.eager_launch_s) == (0.001, 0.0)
    assert (own.eager_moe_layer_s, own.decode_ratio) == (SHIPPED.eager_moe_layer_s, SHIPPED.decode_ratio)


def test_scheduling_that_is_not_asynchronous_is_part_of_every_step() -> None:
    synchronous = (CALIBRATED, "pools.0.scheduler.async_scheduling=false")
    assert step_model(*synchronous).overhead.step_s == pytest.approx(SHIPPED.step_s + 1e-3)
    priced = step_model(*synchronous, "pools.0.engine_overhead.schedule_s=0.002").overhead
    assert priced.step_s == pytest.approx(SHIPPED.step_s + 2e-3)


def test_kernels_and_constants_of_the_engine_are_part_of_a_pool() -> None:
    pool = PoolConfig(model="llama-3.1-8b", device="h200-sxm", kernels={"gemm": "triton"})
    assert PoolConfig.model_validate(pool.model_dump(mode="json")) == pool
