"""Schedulers, one engine per file: what the next step does, decided from counts alone.

A new engine is one file here, with its spec and its policy, and one line in each of the two tables below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from ..kv.blocks import KvCache
from .base import Scheduler
from .engine_spec import EngineSpec
from .fastgen import FastGenScheduler, FastGenSpec
from .ksana import KsanaScheduler, KsanaSpec
from .orca import OrcaScheduler, OrcaSpec
from .python_policy import PythonSpec, make_python_policy
from .ranked import RankedScheduler, RankedSpec
from .sglang import SglangScheduler, SglangSpec
from .static import StaticScheduler, StaticSpec
from .swap import BlockCopies
from .tgi import TgiScheduler, TgiSpec
from .trtllm import TrtllmScheduler, TrtllmSpec
from .vllm_v0 import VllmV0Scheduler, VllmV0Spec
from .vllm_v1 import VllmV1Scheduler, VllmV1Spec
from .vllm_v1_pipeline import PipelinedVllmV1Scheduler

SchedulerSpec = Annotated[
    VllmV1Spec
    | VllmV0Spec
    | KsanaSpec
    | RankedSpec
    | FastGenSpec
    | SglangSpec
    | OrcaSpec
    | StaticSpec
    | TgiSpec
    | TrtllmSpec
    | PythonSpec,
    Field(discriminator="kind"),
]


def _make_vllm_v1(spec: VllmV1Spec, *, kv: KvCache, max_model_len: int, block_bytes: int) -> Scheduler:
    make = VllmV1Scheduler if spec.policy == "fcfs" else RankedScheduler
    return make(spec, kv=kv, max_model_len=max_model_len, block_bytes=block_bytes)


# What `kind` names, by the class of its settings.
_SCHEDULERS: Mapping[type[EngineSpec], Callable[..., Scheduler]] = MappingProxyType(
    {
        VllmV1Spec: _make_vllm_v1,
        VllmV0Spec: VllmV0Scheduler,
        KsanaSpec: KsanaScheduler,
        RankedSpec: RankedScheduler,
        FastGenSpec: FastGenScheduler,
        PythonSpec: make_python_policy,
        SglangSpec: SglangScheduler,
        OrcaSpec: OrcaScheduler,
        StaticSpec: StaticScheduler,
        TgiSpec: TgiScheduler,
        TrtllmSpec: TrtllmScheduler,
    }
)

# Those that swap requests out, and so copy blocks.
_SWAPPING = (VllmV0Spec, KsanaSpec)


def make_scheduler(
    spec: EngineSpec,
    *,
    kv: KvCache,
    max_model_len: int,
    block_bytes: int = 0,
    num_gpus: int = 1,
    num_layers: int = 1,
    waits_for_tokens: bool = False,
) -> Scheduler:
    """Returns the policy that `spec` asks for, over one replica's KV cache.

    block_bytes: what moving one block moves, on all GPUs of the replica together, which has `num_gpus` and
    `num_layers` layers. waits_for_tokens: several steps are in flight, and none may hold a request whose
    token is still on its way (vLLM V1's batch queue).
    """
    if waits_for_tokens:
        assert isinstance(spec, VllmV1Spec), "a deployment has refused other engines"
        return PipelinedVllmV1Scheduler(spec, kv=kv, max_model_len=max_model_len, block_bytes=block_bytes)
    make = _SCHEDULERS[type(spec)]
    if isinstance(spec, _SWAPPING):
        copies = BlockCopies(block_bytes, num_gpus, num_layers)
        return make(spec, kv=kv, max_model_len=max_model_len, copies=copies)
    return make(spec, kv=kv, max_model_len=max_model_len, block_bytes=block_bytes)


def spec_of_kind(kind: object) -> type[EngineSpec] | None:
    """Returns the class of the settings that `kind` names, None if there is none."""
    return next((spec for spec in _SCHEDULERS if _kind_of(spec) == kind), None)


def scheduler_names() -> list[str]:
    """Returns the kinds and the names of their variants; `python` is none, for it needs a path."""
    specs = [spec for spec in _SCHEDULERS if spec is not PythonSpec]
    return [name for spec in specs for name in (_kind_of(spec), *spec.variants)]


def scheduler_settings(name: str) -> dict[str, object] | None:
    """Returns the settings that a kind, or the name of a variant, stands for; None if there is none such."""
    for spec in _SCHEDULERS:
        kind = _kind_of(spec)
        if name == kind:
            return {"kind": kind}
        if name in spec.variants:
            return {"kind": kind, **spec.variants[name]}
    return None


def _kind_of(spec: type[EngineSpec]) -> str:
    return str(spec.model_fields["kind"].default)


__all__ = [
    "PipelinedVllmV1Scheduler",
    "Scheduler",
    "SchedulerSpec",
    "make_scheduler",
    "scheduler_names",
    "scheduler_settings",
    "spec_of_kind",
]
