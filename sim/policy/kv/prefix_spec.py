"""Which engine's prefix cache a replica has, and that cache's own settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...spec import Spec
from .block_reuse import DEFAULT_PRIORITY
from .radix_order import RadixPolicy

CacheKind = Literal["hash", "radix", "trtllm", "ksana"]


class OwnPrefixCache(Spec):
    """The cache that the scheduler's engine has; none where the engine has none."""

    kind: Literal["auto"] = "auto"


class HashPrefixCache(Spec):
    """vLLM's: chained block hashes, least recently released blocks evicted first."""

    kind: Literal["hash"] = "hash"


class RadixPrefixCache(Spec):
    """SGLang's: a radix tree, evicted leaf by leaf; set block_size to its page size, 1 by default there."""

    kind: Literal["radix"] = "radix"
    eviction_policy: RadixPolicy = Field("lru", description="Order of the leaves, by SGLang's names.")


class TrtllmPrefixCache(Spec):
    """TensorRT-LLM's: a tree of blocks with retention priorities, reused in part."""

    kind: Literal["trtllm"] = "trtllm"
    enable_partial_reuse: bool = Field(
        True, description="Copy the beginning of a block whose end does not fit."
    )
    prompt_priority: int = Field(
        DEFAULT_PRIORITY, ge=0, le=100, description="Retention of prompts' blocks; lower ones go first."
    )
    output_priority: int = Field(DEFAULT_PRIORITY, ge=0, le=100, description="Retention of answers' blocks.")


class KsanaPrefixCache(Spec):
    """KsanaLLM's: a tree of blocks, newest ones evicted first, equal ones merged."""

    kind: Literal["ksana"] = "ksana"


PrefixCache = OwnPrefixCache | HashPrefixCache | RadixPrefixCache | TrtllmPrefixCache | KsanaPrefixCache
