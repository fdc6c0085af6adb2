"""A deployment: what a pool's settings come to on real hardware, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InfeasibleError, Problem, ScenarioError, SimllmError
from ..hwmodels.cudagraph import CudaGraphSizes
from ..hwmodels.engine_profile import (
    EngineOverhead,
    EngineProfile,
    load_engine_profile,
    shipped_engine_profile,
)
from ..hwmodels.memory import MemoryBudget, memory_budget
from ..hwmodels.model import ModelSpec
from ..hwmodels.model_config import load_model
from ..hwmodels.parallel import rank_shapes
from ..hwmodels.precision import Precision
from ..hwmodels.profile import HardwareProfile, load_profile
from ..hwmodels.step import StepModel
from ..hwmodels.utilization import ModelWork
from .parallelism import (
    VLLM_V1_KINDS,
    expert_routing,
    parallel_problems,
    parallel_spec,
    steps_in_flight,
    tensor_communication,
    weights_away,
)
from .policy.kv.contiguous import check_contiguous
from .policy.kv.layout_spec import ContiguousLayout
from .policy.kv.tiers.rules import refusal
from .pool import PoolConfig
from .step_models import make_step_model, resident_weight_bytes


@dataclass(frozen=True, slots=True)
class Deployment:
    """One pool's model on its hardware. All replicas share it: nothing here changes in a run.

    max_model_len: the longest prompt plus answer [tokens] that the engine takes.
    """

    config: PoolConfig
    model: ModelSpec
    profile: HardwareProfile
    precision: Precision
    graphs: CudaGraphSizes
    budget: MemoryBudget
    step_model: StepModel
    work: ModelWork
    max_model_len: int

    @property
    def num_gpus(self) -> int:
        """GPUs of one replica."""
        return parallel_spec(self.config).num_gpus

    @property
    def num_kv_blocks(self) -> int:
        """Blocks that requests can hold: all but vLLM's null block."""
        return self.budget.num_gpu_blocks - 1

    @property
    def pipeline_depth(self) -> int:
        """Steps in flight."""
        return steps_in_flight(self.config)


def deploy_all(pools: Sequence[PoolConfig], base_dir: Path) -> tuple[Deployment, ...]:
    """Returns what each pool comes to; `base_dir` is the folder that their paths are relative to.

    Raises: ScenarioError with the first problem of every pool (unknown models and devices, shapes that
    cannot be cut over the GPUs); InfeasibleError, with the sum of bytes, for a model that does not fit.
    """
    deployments: list[Deployment] = []
    problems: list[Problem] = []
    for number, pool in enumerate(pools):
        try:
            deployments.append(deploy(pool, base_dir, f"$.pools[{number}]"))
        except ScenarioError as error:
            problems += error.problems
    if problems:
        raise ScenarioError(problems)
    return tuple(deployments)


def deploy(pool: PoolConfig, base_dir: Path, path: str = "$.pools[0]") -> Deployment:
    """Returns what `pool`, at `path` of the scenario, comes to.

    Raises: ScenarioError and InfeasibleError, as `deploy_all` does.
    """
    with _problems_at(f"{path}.model"):
        model = load_model(from_folder(pool.model, base_dir))
    with _problems_at(f"{path}.device"):
        profile = load_profile(from_folder(pool.device, base_dir))
    with _problems_at(f"{path}.engine_profile"):
        engine = _engine_profile(pool, profile, base_dir)
    with _problems_at(path):
        return _deploy(pool, model, profile, engine, path)


@contextmanager
def _problems_at(path: str) -> Iterator[None]:
    """Says where in the scenario an error lies that the hardware models could not place."""
    try:
        yield
    except (ScenarioError, InfeasibleError):
        raise
    except SimllmError as error:
        raise ScenarioError([Problem(path, str(error))]) from error


def _deploy(
    pool: PoolConfig, model: ModelSpec, profile: HardwareProfile, engine: EngineProfile | None, path: str
) -> Deployment:
    if refused := list(parallel_problems(pool, path)):
        raise ScenarioError(refused)
    with _problems_at(f"{path}.experts"):
        expert_routing(pool.experts)
    with _problems_at(f"{path}.communication"):
        tensor_communication(pool.communication)
    with _problems_at(f"{path}.weights"):
        weights_away(pool.weights)
    with _problems_at(f"{path}.parallel"):
        rank_shapes(model, parallel_spec(pool))
    with _problems_at(f"{path}.kernels"):
        step_model = make_step_model(pool, model, profile, _overhead(pool, engine))
    precision, graphs = step_model.precision, step_model.cuda_graph
    budget = memory_budget(
        model,
        profile.device,
        precision=precision,
        parallel=step_model.parallel,
        block_size=pool.kv.block_size,
        gpu_memory_utilization=pool.gpu_memory_utilization,
        max_num_batched_tokens=pool.scheduler.max_num_batched_tokens,
        max_num_seqs=pool.scheduler.max_num_seqs,
        cuda_graph=graphs,
        num_gpu_blocks=pool.kv.num_gpu_blocks,
        weight_bytes=resident_weight_bytes(pool, model, precision),
    )
    max_model_len = _max_model_len(pool, model, path)
    if isinstance(layout := pool.kv.layout, ContiguousLayout):
        num_slots = (budget.num_gpu_blocks - 1) * pool.kv.block_size
        check_contiguous(layout.allocator, num_slots=num_slots, max_model_len=max_model_len)
    why = refusal(pool.kv.tier_policy, pool.scheduler.kind) if pool.kv.has_tiers else None
    if why is not None:
        raise ScenarioError([Problem(f"{path}.kv.tier_policy", why)])
    return Deployment(
        config=pool,
        model=model,
        profile=profile,
        precision=precision,
        graphs=graphs,
        budget=budget,
        step_model=step_model,
        work=ModelWork(model, precision),
        max_model_len=max_model_len,
    )


def from_folder(name: str, base_dir: Path) -> str:
    """Returns the absolute path if `name` is a file in `base_dir`, else the name as it stands."""
    path = base_dir / name
    return str(path.resolve()) if path.is_file() else name


def _engine_profile(pool: PoolConfig, profile: HardwareProfile, base_dir: Path) -> EngineProfile | None:
    """Returns the profile that the pool names, or vLLM V1's shipped one on a calibrated device."""
    if pool.engine_profile is not None:
        return load_engine_profile(from_folder(pool.engine_profile, base_dir))
    if profile.ops is None or pool.scheduler.kind not in VLLM_V1_KINDS:
        return None
    return shipped_engine_profile("vllm", profile.device.name)


def _overhead(pool: PoolConfig, engine: EngineProfile | None) -> EngineOverhead:
    """Returns the constants of the engine's profile or its kind, or the pool's where it has its own.

    Scheduling adds to every step that does not run beside it.
    """
    config = pool.engine_overhead
    own_kinds = replace(EngineOverhead(), **pool.scheduler.overhead_defaults)
    fitted = own_kinds if engine is None else engine.overhead()
    own = {
        name: value
        for name in ("step_s", "eager_launch_s", "eager_moe_layer_s")
        if (value := getattr(config, name)) is not None
    }
    overhead = replace(fitted, **own)
    if pool.scheduler.async_scheduling or steps_in_flight(pool) > 1:
        return overhead
    return replace(overhead, step_s=overhead.step_s + config.schedule_s)


def _max_model_len(pool: PoolConfig, model: ModelSpec, path: str) -> int:
    asked = pool.scheduler.max_model_len
    if asked is not None and asked > model.max_model_len:
        what = f"{model.name} allows {model.max_model_len} tokens at most"
        raise ScenarioError([Problem(f"{path}.scheduler.max_model_len", what, asked)])
    return asked or model.max_model_len
