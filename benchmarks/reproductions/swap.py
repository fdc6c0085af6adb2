"""What becomes of requests that lose their memory: recomputed, swapped to the host, or found in a tier."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from .lengths import SHAREGPT_ANSWERS, SHAREGPT_PROMPTS, uniform
from .row import Row
from .runs import Data, closed_loop, poisson, pool, run, synthetic

PAPER = "https://arxiv.org/abs/2309.06180 (section 7.3)"
OFFLOADING = (
    "vLLM blog, Inside vLLM's New KV Offloading Connector, as summed up at https://app.daily.dev/posts/"
    "inside-vllm-s-new-kv-offloading-connector-smarter-memory-transfer-for-maximizing-inference-throughp-"
    "6u1hcazvw"
)
REQUEST_RATE = 2.2  # a little below what the engine can do, so that blocks run out now and then
SMALL_BLOCKS = (
    "The source finds swapping slow with smaller blocks. A datasheet device has no time per copy beyond its "
    "bytes, so that is not seen here: with blocks of 1 token recomputing takes 1.2 times as long."
)
# Long reasoning: as in vLLM's watermark table, 128 clients, some 1,000 tokens in and 5,000 out.
REASONING = (uniform(800, 1200), uniform(4000, 6000))
REASONING_BLOCKS = 299_584 // 16


@cache
def _token_latency_s(mode: str, block_size: int) -> float:
    """Returns the mean latency per generated token of OPT-13B under ShareGPT's load [s]."""
    scheduler: Data = {"kind": "vllm_v0", "preemption_mode": mode, "swap_space": 16, "max_model_len": 2048}
    workload = synthetic(1000, poisson(REQUEST_RATE), SHAREGPT_PROMPTS, SHAREGPT_ANSWERS)
    chosen = pool("opt-13b", "a100-40gb", scheduler, kv={"block_size": block_size}, enforce_eager=True)
    rows = run(workload, chosen, run={"record_steps": False}).requests
    return float((rows["e2el_ms"] / rows["output_tokens"]).mean()) / 1e3


def _recompute_over_swap(block_size: int) -> float:
    return _token_latency_s("recompute", block_size) / _token_latency_s("swap", block_size)


@cache
def _reasoning(mode: str) -> float:
    """Returns the output tokens/s of Qwen2.5-7B under long answers."""
    scheduler: Data = {"kind": "vllm_v0", "preemption_mode": mode, "swap_space": 64, "max_model_len": 8192}
    kv = {"num_gpu_blocks": REASONING_BLOCKS}
    workload = synthetic(300, closed_loop(128), *REASONING)
    chosen = pool("qwen2.5-7b", "h100-sxm", scheduler, kv=kv)
    summary = run(workload, chosen, run={"record_steps": False}).summary()
    return float(summary["output_throughput"])


def _reasoning_swap_over_recompute() -> float:
    return _reasoning("swap") / _reasoning("recompute")


@cache
def _loaded_over_computed(prompt_tokens: int) -> float:
    """Returns how many times sooner a prompt's first token comes if host memory holds its KV.

    The same prompt twice, and between them another one that drives it out of the GPU's memory.
    """
    blocks = prompt_tokens // 512
    rows = [(0, 0), (20_000, blocks), (40_000, 0)]  # instant [ms], first of the content's blocks
    kv = {
        "num_gpu_blocks": prompt_tokens // 16 + 64,
        "tier_policy": {"kind": "vllm_offloading", "kv_offloading_size_gib": 64},
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.jsonl"
        lines = (
            {
                "timestamp": at,
                "input_length": prompt_tokens,
                "output_length": 1,
                "hash_ids": list(range(first, first + blocks)),
            }
            for at, first in rows
        )
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        chosen = pool("llama-3.1-8b", "h100-sxm", {"kind": "vllm_v1"}, kv=kv)
        ttft_ms = run({"kind": "mooncake", "path": str(path)}, chosen).requests["ttft_ms"]
    return float(ttft_ms.iloc[1] / ttft_ms.iloc[2])


ROWS = (
    *(
        Row(
            id=f"swap-block-{block_size}",
            claim=f"recomputing and swapping are comparable end to end, blocks of {block_size}",
            source=PAPER,
            model="opt-13b",
            device="a100-40gb",
            engine="vLLM V0, preemption_mode recompute / swap",
            workload=f"1,000 Poisson requests at {REQUEST_RATE:g}/s, lengths as in ShareGPT",
            metric="latency per token over latency per token",
            published=(1.0, 1.0),
            measure=partial(_recompute_over_swap, block_size),
            explanation=SMALL_BLOCKS,
        )
        for block_size in (16, 64)
    ),
    Row(
        id="swap-long-reasoning",
        claim="recomputing and swapping are comparable with long answers, too",
        source=f"{PAPER}, for shorter answers",
        model="qwen2.5-7b",
        device="h100-sxm",
        engine="vLLM V0, preemption_mode swap / recompute",
        workload="300 requests of 128 clients, 800-1,200 tokens in, 4,000-6,000 out, 299,584 tokens of KV",
        metric="output tokens/s over output tokens/s",
        published=(1.0, 1.0),
        measure=_reasoning_swap_over_recompute,
        explanation="A tier does more: vLLM V1 with native offloading makes 5,930 tokens/s and recomputes "
        "5,414 tokens, without it 5,550 to 5,630 and 0.9 to 1.1 million.",
    ),
    *(
        Row(
            id=f"swap-tier-ttft-{prompt_tokens}",
            claim="a cached prompt's first token comes 2 to 22 times sooner from host memory, by its length",
            source=OFFLOADING,
            model="llama-3.1-8b",
            device="h100-sxm",
            engine="vLLM V1, native offloading / recomputing",
            workload=f"the same prompt of {prompt_tokens:,} tokens twice, another one in between",
            metric="TTFT over TTFT",
            published=(2.0, 22.0),
            measure=partial(_loaded_over_computed, prompt_tokens),
            explanation="The source gives no lengths with its two ends; 512 tokens give 2.0 here.",
        )
        for prompt_tokens in (1024, 16_384, 65_536)
    ),
)
