"""vLLM's first comparison: throughput against Hugging Face Transformers and Text Generation Inference."""

from __future__ import annotations

from functools import cache, partial

from .lengths import SHAREGPT_ANSWERS, SHAREGPT_PROMPTS
from .row import Row
from .runs import Data, burst, pool, run, synthetic

SOURCE = "https://blog.vllm.ai/2023/06/20/vllm.html"
SETUPS = {"a10g": "llama-2-7b", "a100-40gb": "llama-2-13b"}
LONGEST = 2048
# Of June 2023: no CUDA graphs (vLLM v0.1.0), a budget of 2,560 tokens and 256 sequences (its EngineArgs).
VLLM: Data = {
    "kind": "vllm_v0",
    "max_num_batched_tokens": 2560,
    "max_num_seqs": 256,
    "max_model_len": LONGEST,
}
TGI: Data = {
    "kind": "tgi",
    "version": "2023-06",
    "max_total_tokens": LONGEST,
    "max_concurrent_requests": 5000,
}
PUBLISHED = {("hf", 1): (14.0, 24.0), ("tgi", 1): (2.2, 2.5), ("hf", 3): (8.5, 15.0), ("tgi", 3): (3.3, 3.5)}
NAMES = {"hf": "Hugging Face Transformers", "tgi": "Text Generation Inference"}
# Ablation: batches of 1 to 8.
HF_BATCH = (
    "The batch is the largest that never runs out of memory with sequences of 2,048 tokens, as "
    "`--hf-max-batch-size` must be chosen: 4 with one completion, 1 with three."
)
HF_A10G = (
    " The source names no batch. With 2 requests it is 14.5 on the A10G, with 3 11.4, with 8 8.2: fewer fit "
    "where the logits of all prompt positions and the scores of eager attention need their memory, too."
)


@cache
def _batch_size(device: str, num_samples: int) -> int:
    """Returns the requests of 2,048 tokens, each with its samples, whose cache fits twice."""
    summary = _summary("hf", device, num_samples, num_samples, num_requests=8)
    num_slots: int = summary["kv"][0]["num_blocks"] * summary["kv"][0]["block_size"]
    return max(num_slots // (2 * LONGEST * num_samples), 1)


@cache
def _summary(engine: str, device: str, num_samples: int, rows: int = 0, num_requests: int = 1000) -> Data:
    """The benchmark of the blog: 1,000 requests at once, ShareGPT's lengths."""
    workload = synthetic(num_requests, burst(), SHAREGPT_PROMPTS, SHAREGPT_ANSWERS)
    workload["num_samples"] = num_samples
    model = SETUPS[device]
    if engine == "vllm":
        chosen = pool(model, device, VLLM, enforce_eager=True)
    elif engine == "tgi":
        chosen = pool(model, device, TGI, gpu_memory_utilization=1.0)
    else:
        static = {"kind": "static", "max_batch_size": rows, "attn_implementation": "eager", "cache": "legacy"}
        static["max_model_len"] = LONGEST
        chosen = pool(model, device, static, gpu_memory_utilization=1.0)
    return run(workload, chosen, run={"record_steps": False}).summary()


def _ratio(other: str, device: str, num_samples: int) -> float:
    rows = _batch_size(device, num_samples) * num_samples if other == "hf" else 0
    ours = _summary("vllm", device, num_samples)["request_throughput"]
    return float(ours / _summary(other, device, num_samples, rows)["request_throughput"])


def _explanation(other: str, device: str, num_samples: int) -> str:
    if other != "hf":
        return ""
    return HF_BATCH + (HF_A10G if device == "a10g" and num_samples == 1 else "")


def _row(other: str, device: str, num_samples: int) -> Row:
    what = "one completion" if num_samples == 1 else "three parallel completions"
    return Row(
        id=f"vllm-blog-{device}-{other}-n{num_samples}",
        claim=f"vLLM's throughput over that of {NAMES[other]}, {what} per request",
        source=SOURCE,
        model=SETUPS[device],
        device=device,
        engine=f"vLLM V0 / {'static batching' if other == 'hf' else 'TGI 2023-06'}",
        workload="1,000 requests at once, lengths as in ShareGPT",
        metric="requests/s over requests/s",
        published=PUBLISHED[other, num_samples],
        measure=partial(_ratio, other, device, num_samples),
        explanation=_explanation(other, device, num_samples),
    )


ROWS = tuple(
    _row(other, device, num_samples) for num_samples in (1, 3) for device in SETUPS for other in ("hf", "tgi")
)
