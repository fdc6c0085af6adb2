"""What a pool's degrees of parallelism come to: how many GPUs, how many steps in flight, what is refused."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import Problem
from ..hwmodels.expert_ranks import ExpertRouting
from ..hwmodels.parallel import ParallelSpec
from ..hwmodels.tensor_traffic import TensorCommunication
from ..hwmodels.weight_stream import WeightsAway
from .pool import CommunicationConfig, ExpertsConfig, PoolConfig, WeightsConfig

# Schedulers in vLLM V1's engine, whose constants the shipped engine profiles are.
VLLM_V1_KINDS = ("vllm_v1", "ranked", "python")

_GB = 1e9  # drives are sold in powers of ten

# Engines whose batches pass stages one at a time: a model cut over GPUs by Hugging Face's device_map.
_ONE_AT_A_TIME_KINDS = ("static",)


def parallel_spec(pool: PoolConfig) -> ParallelSpec:
    """Returns a pool's degrees of parallelism. Raises: SimllmError for degrees that exclude each other."""
    config, num_copies = pool.parallel, pool.experts.num_redundant_experts
    return ParallelSpec(tp=config.tp, pp=config.pp, ep=config.ep, num_redundant_experts=num_copies)


def expert_routing(config: ExpertsConfig) -> ExpertRouting:
    """Returns which experts tokens choose. Raises: SimllmError for copies without balancing."""
    return ExpertRouting(config.skew, config.enable_eplb, config.num_redundant_experts)


def tensor_communication(config: CommunicationConfig) -> TensorCommunication:
    """Returns how ranks exchange activations. Raises: SimllmError for ways that exclude each other."""
    return TensorCommunication(
        config.all_reduce, config.sequence_parallel, config.overlap_share, config.compression
    )


def weights_away(config: WeightsConfig) -> WeightsAway | None:
    """Returns where weights live, None if in HBM. Raises: SimllmError for shards of unsharded weights."""
    away = WeightsAway(config.placement, config.num_shards, config.nvme_gb_per_s * _GB)
    return None if config.placement == "hbm" else away


def steps_in_flight(pool: PoolConfig) -> int:
    """Returns how many steps of a replica are in flight at most: of vLLM V1 one per pipeline stage.

    Source: vLLM, config/vllm.py, max_concurrent_batches (asynchronous scheduling without stages: 2).
    """
    if pool.parallel.pp > 1:
        return pool.parallel.pp if pool.scheduler.kind in VLLM_V1_KINDS else 1
    return 2 if pool.scheduler.async_scheduling else 1


def returns_tokens(pool: PoolConfig) -> bool:
    """Returns whether a step's first stage waits for the tokens of the step before it, on the GPU.

    Asynchronous scheduling puts a request into every step in flight, before its last token is known; the last
    stage broadcasts the sampled tokens, and the first one's next step queues behind that broadcast.
    Source: vLLM, v1/worker/gpu_model_runner.py, _pp_broadcast_prev_sampled_token_ids
    """
    return pool.parallel.pp > 1 and pool.scheduler.async_scheduling


def waits_for_tokens(pool: PoolConfig) -> bool:
    """Returns whether steps in flight share no requests: with stages and synchronous scheduling."""
    return steps_in_flight(pool) > 1 and not pool.scheduler.async_scheduling


def parallel_problems(pool: PoolConfig, path: str) -> Iterator[Problem]:
    """Yields what an engine cannot do with its degrees of parallelism; `path` is the pool's."""
    scheduler, pp = pool.scheduler, pool.parallel.pp
    if pp == 1:
        return
    if pool.weights.placement != "hbm":
        what = "is modelled with one pipeline stage"
        yield Problem(f"{path}.weights.placement", what, pool.weights.placement)
    where, kind = f"{path}.parallel.pp", scheduler.kind
    if kind not in (*VLLM_V1_KINDS, *_ONE_AT_A_TIME_KINDS):
        choices = ", ".join((*VLLM_V1_KINDS, *_ONE_AT_A_TIME_KINDS))
        yield Problem(where, f"{kind} is modelled with one stage; pipelines go with {choices}", pp)
    elif waits_for_tokens(pool) and (kind != "vllm_v1" or getattr(scheduler, "policy", "") != "fcfs"):
        what = "needs async_scheduling: true, or vllm_v1 with policy fcfs, whose batches take turns"
        yield Problem(where, what, pp)
