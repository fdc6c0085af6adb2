"""A deployment: what a pool's settings come to on real hardware, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import InfeasibleError, Problem, ScenarioError, SimllmError
from ..hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from ..hwmodels.engine_profile import EngineOverhead
from ..hwmodels.memory import MemoryBudget, memory_budget
from ..hwmodels.model import ModelSpec
from ..hwmodels.model_config import load_model
from ..hwmodels.parallel import ParallelSpec
from ..hwmodels.precision import Precision
from ..hwmodels.profile import HardwareProfile, load_profile
from ..hwmodels.roofline_step import RooflineStepModel
from ..hwmodels.step import StepModel
from ..hwmodels.utilization import ModelWork
from .pool import PoolConfig


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
        return self.config.parallel.tp

    @property
    def num_kv_blocks(self) -> int:
        """Blocks that requests can hold: all but vLLM's null block."""
        return self.budget.num_gpu_blocks - 1

    @property
    def pipeline_depth(self) -> int:
        """Steps in flight."""
        return 2 if self.config.scheduler.async_scheduling else 1


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
    with _problems_at(path):
        return _deploy(pool, model, profile, path)


@contextmanager
def _problems_at(path: str) -> Iterator[None]:
    """Says where in the scenario an error lies that the hardware models could not place."""
    try:
        yield
    except (ScenarioError, InfeasibleError):
        raise
    except SimllmError as error:
        raise ScenarioError([Problem(path, str(error))]) from error


def _deploy(pool: PoolConfig, model: ModelSpec, profile: HardwareProfile, path: str) -> Deployment:
    kv_dtype = pool.dtype if pool.kv.dtype == "auto" else pool.kv.dtype
    precision = Precision.on(
        profile.device, weight=pool.weight_dtype or pool.dtype, activation=pool.dtype, kv=kv_dtype
    )
    parallel = ParallelSpec(tp=pool.parallel.tp)
    graphs = _graphs(pool)
    step_model = RooflineStepModel(
        model,
        profile.device,
        weight_dtype=precision.weight,
        activation_dtype=precision.activation,
        kv_dtype=precision.kv,
        parallel=parallel,
        cuda_graph=graphs,
        overhead=_overhead(pool),
        efficiency=profile.efficiency,
    )
    budget = memory_budget(
        model,
        profile.device,
        precision=precision,
        parallel=parallel,
        block_size=pool.kv.block_size,
        gpu_memory_utilization=pool.gpu_memory_utilization,
        max_num_batched_tokens=pool.scheduler.max_num_batched_tokens,
        max_num_seqs=pool.scheduler.max_num_seqs,
        cuda_graph=graphs,
        num_gpu_blocks=pool.kv.num_gpu_blocks,
    )
    return Deployment(
        config=pool,
        model=model,
        profile=profile,
        precision=precision,
        graphs=graphs,
        budget=budget,
        step_model=step_model,
        work=ModelWork(model, precision),
        max_model_len=_max_model_len(pool, model, path),
    )


def from_folder(name: str, base_dir: Path) -> str:
    """Returns the absolute path if `name` is a file in `base_dir`, else the name as it stands."""
    path = base_dir / name
    return str(path.resolve()) if path.is_file() else name


def _graphs(pool: PoolConfig) -> CudaGraphSizes:
    if pool.enforce_eager:
        return CudaGraphSizes(())
    sizes = pool.cudagraph_capture_sizes
    return CudaGraphSizes(vllm_capture_sizes(pool.scheduler.max_num_seqs) if sizes is None else sizes)


def _overhead(pool: PoolConfig) -> EngineOverhead:
    """Returns the pool's overhead; scheduling adds to every step that does not run beside it."""
    config = pool.engine_overhead
    schedule_s = 0.0 if pool.scheduler.async_scheduling else config.schedule_s
    return EngineOverhead(
        step_s=config.step_s + schedule_s,
        eager_launch_s=config.eager_launch_s,
        eager_moe_layer_s=config.eager_moe_layer_s,
    )


def _max_model_len(pool: PoolConfig, model: ModelSpec, path: str) -> int:
    asked = pool.scheduler.max_model_len
    if asked is not None and asked > model.max_model_len:
        what = f"{model.name} allows {model.max_model_len} tokens at most"
        raise ScenarioError([Problem(f"{path}.scheduler.max_model_len", what, asked)])
    return asked or model.max_model_len
