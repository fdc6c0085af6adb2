"""Schedulers, one engine per file: what the next step does, decided from counts alone.

A new engine is one file here, with its spec and its policy, and one line in each of the two tables below.
"""

from __future__ import annotations

from ..kv.blocks import KvCache
from .base import Scheduler
from .vllm_v1 import VllmV1Scheduler, VllmV1Spec

SchedulerSpec = VllmV1Spec


def make_scheduler(spec: SchedulerSpec, *, kv: KvCache, max_model_len: int) -> Scheduler:
    """Returns the policy that `spec` asks for, over one replica's KV cache."""
    return VllmV1Scheduler(spec, kv=kv, max_model_len=max_model_len)


__all__ = ["Scheduler", "SchedulerSpec", "make_scheduler"]
