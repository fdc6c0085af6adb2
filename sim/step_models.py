"""What prices the steps of a pool: its model on its device, cut, compressed and placed as it asks."""

from __future__ import annotations

from dataclasses import replace

from ..hwmodels.calibration import Calibration
from ..hwmodels.collectives import Collectives
from ..hwmodels.compression import GROUP_BYTES, SCALE_FLOPS, KvCompression
from ..hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from ..hwmodels.engine_profile import EngineOverhead
from ..hwmodels.kernel_choice import KernelChoice
from ..hwmodels.model import ModelSpec
from ..hwmodels.pipeline_step import PipelineStepModel
from ..hwmodels.precision import Precision
from ..hwmodels.profile import HardwareProfile
from ..hwmodels.roofline_step import RooflineStepModel
from ..hwmodels.stages import WHOLE, Ends, cut_into_stages
from ..hwmodels.weight_stream import StreamedStepModel
from ..hwmodels.weights import layer_weight_bytes, rank_weight_bytes
from .parallelism import expert_routing, parallel_spec, returns_tokens, tensor_communication, weights_away
from .policy.kv.quantization_spec import (
    AttentionSinksSparsity,
    H2oSparsity,
    PerGroupScales,
    PerTensorScales,
    SlidingWindowSparsity,
)
from .policy.kv.spec import KvConfig
from .pool import PoolConfig

# The measured kernel that is FlashAttention-2: torch's.
# Source: PyTorch, aten/src/ATen/native/transformers/cuda/flash_attn
FLASH_2 = "sdpa-flash"

# Weights per scale of int4 checkpoints. Source: AWQ (arXiv 2306.00978) section 5.1, GPTQ checkpoints (g128).
DEFAULT_WEIGHT_GROUP = 128


def make_step_model(
    pool: PoolConfig, model: ModelSpec, profile: HardwareProfile, overhead: EngineOverhead
) -> RooflineStepModel | PipelineStepModel | StreamedStepModel:
    """Returns what prices the steps of one replica, with these constants of the engine.

    Raises: SimllmError for kernels that there are none of, and as `RooflineStepModel` does.
    """
    parallel = parallel_spec(pool)
    if parallel.pp == 1:
        whole = _stage_model(pool, model, profile, overhead, WHOLE)
        return _streamed(pool, profile, whole)
    stages = [
        _stage_model(pool, stage.model, profile, overhead, stage.ends)
        for stage in cut_into_stages(model, parallel.pp)
    ]
    return PipelineStepModel(
        stages,
        Collectives(profile.links, profile.device, profile.efficiency),
        parallel=parallel,
        returns_tokens=returns_tokens(pool),
    )


def _streamed(
    pool: PoolConfig, profile: HardwareProfile, whole: RooflineStepModel
) -> RooflineStepModel | StreamedStepModel:
    """Returns the step model of weights where the pool keeps them."""
    away = weights_away(pool.weights)
    if away is None:
        return whole
    collectives = Collectives(profile.links, profile.device, profile.efficiency)
    layer_bytes = _layer_bytes(pool, whole.model, whole.precision)
    links = tuple(profile.links or ())
    layer_s = away.arrival_s(layer_bytes, profile.device, collectives, links)
    return StreamedStepModel(whole, whole.model.num_layers * layer_s)


def _layer_bytes(pool: PoolConfig, model: ModelSpec, precision: Precision) -> float:
    return layer_weight_bytes(
        model,
        parallel_spec(pool),
        weight_dtype=precision.weight,
        activation_dtype=precision.activation,
        scale_bytes=precision.weight_scale_bytes,
    )


def resident_weight_bytes(pool: PoolConfig, model: ModelSpec, precision: Precision) -> float | None:
    """Returns the weights that stay in HBM: tables, and the layers there at a time; None if all do."""
    away = weights_away(pool.weights)
    if away is None:
        return None
    whole = rank_weight_bytes(
        model,
        parallel_spec(pool),
        weight_dtype=precision.weight,
        activation_dtype=precision.activation,
        scale_bytes=precision.weight_scale_bytes,
    )
    num_away = model.num_layers - away.num_resident_layers(model.num_layers)
    return whole - num_away * _layer_bytes(pool, model, precision)


def _stage_model(
    pool: PoolConfig, model: ModelSpec, profile: HardwareProfile, overhead: EngineOverhead, ends: Ends
) -> RooflineStepModel:
    kv_dtype = pool.dtype if pool.kv.dtype == "auto" else pool.kv.dtype
    return RooflineStepModel(
        model,
        profile.device,
        weight_dtype=pool.weight_dtype or pool.dtype,
        activation_dtype=pool.dtype,
        kv_dtype=kv_dtype,
        weight_group_size=_weight_group_size(pool),
        kv_compression=kv_compression(pool.kv),
        parallel=replace(parallel_spec(pool), pp=1),
        cuda_graph=_graphs(pool),
        overhead=overhead,
        efficiency=profile.efficiency,
        calibration=_calibration(pool, profile, overhead),
        attention_impl=pool.attention_impl,
        attention_style=pool.scheduler.attention_style,
        is_eager=pool.scheduler.is_eager,
        block_size=pool.kv.block_size if pool.kv.layout.kind == "paged" else None,
        ends=ends,
        routing=expert_routing(pool.experts),
        communication=tensor_communication(pool.communication),
    )


def kv_compression(config: KvConfig) -> KvCompression:
    """Returns what the cache's scales and sparsity make of a cached token."""
    scales, sparsity = config.scales, config.sparsity
    window = None
    if isinstance(sparsity, SlidingWindowSparsity):
        window = sparsity.window_tokens
    elif isinstance(sparsity, AttentionSinksSparsity):
        window = sparsity.sink_tokens + sparsity.window_tokens
    return KvCompression(
        scale_bytes=0.0 if isinstance(scales, PerTensorScales) else GROUP_BYTES / scales.group_size,
        scale_flops=SCALE_FLOPS if isinstance(scales, PerGroupScales) else 0.0,
        keep_share=sparsity.keep_share if isinstance(sparsity, H2oSparsity) else 1.0,
        keeps_scores=isinstance(sparsity, H2oSparsity),
        window=window,
    )


def _weight_group_size(pool: PoolConfig) -> int | None:
    """Returns the weights that share a scale: AWQ's and GPTQ's 128 for int4 unless the pool says."""
    if pool.weight_group_size is None and pool.weight_dtype == "int4":
        return DEFAULT_WEIGHT_GROUP
    return pool.weight_group_size


def _graphs(pool: PoolConfig) -> CudaGraphSizes:
    if pool.enforce_eager:
        return CudaGraphSizes(())
    decodes_only = not pool.scheduler.graphs_prefills
    for sizes in (pool.cudagraph_capture_sizes, pool.scheduler.capture_sizes):
        if sizes is not None:
            return CudaGraphSizes(sizes, decodes_only=decodes_only)
    return CudaGraphSizes(vllm_capture_sizes(pool.scheduler.max_num_seqs), decodes_only=decodes_only)


def _calibration(pool: PoolConfig, profile: HardwareProfile, overhead: EngineOverhead) -> Calibration | None:
    """Returns the measured kernels that the pool runs on, None on a datasheet device."""
    if isinstance(pool.kernels, str):
        ratios = overhead.kernel_ratios if pool.kernels == "vllm" else {}
        kernels = KernelChoice.named(pool.kernels, ratios)
    else:
        kernels = KernelChoice.mixed(pool.kernels)
    if profile.ops is None:
        return None
    if pool.attention_impl == "fa2" and profile.ops.has("attention_prefill", FLASH_2, pool.dtype):
        kernels = kernels.replaced("attention_prefill", FLASH_2)
    return Calibration(profile.ops, kernels, profile.power, profile.links)
