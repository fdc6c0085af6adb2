"""Continuous against static batching: Anyscale's benchmark of OPT-13B, whose settings are public."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from .lengths import capped_exponential
from .row import Row
from .runs import Data, burst, fixed, pool, run, synthetic

BLOG = "https://www.anyscale.com/blog/continuous-batching-llm-inference"
ISSUE = "https://github.com/anyscale/llm-continuous-batching-benchmarks/issues/4"
MODEL, DEVICE = "opt-13b", "a100-40gb"
ENGINES = "TensorRT-LLM, GUARANTEED_NO_EVICT / STATIC_BATCH"
PROMPT, MEAN_ANSWER = 512, 128
# The longest answer -> static batch size, tokens in flight (or per step) of the continuous engines.
# Source: the repository of ISSUE, benchmark_configs/{naive_hf,ft,vllm,ray_dynamic}_variable_size.
SETTINGS = {32: (16, 8700), 128: (12, 7500), 512: (8, 8100), 1536: (4, 8100)}
# Total tokens/s of vLLM: those of a second measurement (vLLM 0.1.2), and of the blog, both as ISSUE has them.
VLLM_TOKENS_PER_S = {32: (5752, 6121), 128: (3180, 3592), 512: (1734, 2029), 1536: (1653, 1898)}


@cache
def _vllm(cap: int) -> Data:
    """vLLM 0.1.2, without CUDA graphs."""
    _, tokens = SETTINGS[cap]
    scheduler = {"kind": "vllm_v0", "max_num_batched_tokens": tokens, "max_model_len": 2048}
    return _summary(cap, pool(MODEL, DEVICE, scheduler, enforce_eager=True))


@cache
def _naive(cap: int) -> float:
    """Returns the tokens/s of `generate` in static batches, counting the tokens asked for.

    The script gives the longest answer of all requests to every batch as both least and most length.
    """
    rows = SETTINGS[cap][0]
    asked = _vllm(cap)
    longest = max(_answers(cap))
    static = {"kind": "static", "max_batch_size": rows, "attn_implementation": "eager", "cache": "legacy"}
    chosen = pool(MODEL, DEVICE, {**static, "max_model_len": 2048}, gpu_memory_utilization=1.0)
    workload = synthetic(1000, burst(), fixed(PROMPT), fixed(longest))
    summary = run(workload, chosen, run={"record_steps": False}).summary()
    num_tokens = asked["total_input_tokens"] + asked["total_output_tokens"]
    return float(num_tokens / summary["duration"])


def _answers(cap: int) -> list[int]:
    """Returns the answers' lengths of the workload."""
    chosen = pool(MODEL, DEVICE, {"kind": "vllm_v0", "max_model_len": 2048})
    rows = run(_workload(cap), chosen, run={"record_steps": False}).requests
    return [int(tokens) for tokens in rows["requested_output_tokens"]]


@cache
def _engine_in_c(cap: int, is_continuous: bool) -> Data:
    """One C++ engine with static batches, or with as many tokens in flight as the benchmark gave."""
    rows, tokens = SETTINGS[cap]
    scheduler: Data = {"kind": "trtllm"}
    kv: Data = {"enable_prefix_caching": False}
    if is_continuous:
        kv["num_gpu_blocks"] = tokens // 32
    else:
        scheduler |= {"capacity_scheduler_policy": "STATIC_BATCH", "max_batch_size": rows}
    return _summary(cap, pool(MODEL, DEVICE, scheduler, kv=kv))


def _workload(cap: int) -> Data:
    return synthetic(1000, burst(), fixed(PROMPT), capped_exponential(MEAN_ANSWER, cap))


def _summary(cap: int, chosen: Data) -> Data:
    return run(_workload(cap), chosen, run={"record_steps": False}).summary()


def _vllm_throughput(cap: int) -> float:
    return float(_vllm(cap)["total_token_throughput"])


def _vllm_over_naive() -> float:
    return _vllm_throughput(1536) / _naive(1536)


def _continuous_over_static(cap: int) -> float:
    continuous, static = _engine_in_c(cap, True), _engine_in_c(cap, False)
    return float(continuous["total_token_throughput"] / static["total_token_throughput"])


def _row(
    name: str,
    claim: str,
    engine: str,
    cap: int,
    published: tuple[float, float],
    measure: Callable[[], float],
    explanation: str = "",
    source: str = BLOG,
) -> Row:
    is_absolute = name.startswith("vllm-throughput")
    return Row(
        id=f"anyscale-{name}",
        claim=claim,
        source=source,
        model=MODEL,
        device=DEVICE,
        engine=engine,
        workload=f"1,000 requests at once, 512 tokens in, exponential answers of 128, {cap:,} at most",
        metric="tokens in and out/s" if is_absolute else "tokens/s over tokens/s",
        published=published,
        measure=measure,
        explanation=explanation,
    )


ROWS = (
    *(
        _row(
            f"vllm-throughput-{cap}",
            f"vLLM's throughput, answers up to {cap:,} tokens",
            "vLLM V0",
            cap,
            published,
            partial(_vllm_throughput, cap),
            source=ISSUE,
        )
        for cap, published in VLLM_TOKENS_PER_S.items()
    ),
    _row(
        "vllm-over-naive",
        "vLLM's throughput over naive static batching: 23 times",
        "vLLM V0 / static batching",
        1536,
        (23.0, 23.0),
        _vllm_over_naive,
        "The benchmark's script lets every static batch run to the longest answer of all 1,000 requests "
        "(`min_length = max_length` in launch_vanilla_hf); so it is here. Batches that end with their own "
        "longest answer give 6.6.",
    ),
    _row(
        "continuous-over-static-1536",
        "continuous batching (8 times the naive one) over static batching in an optimised engine (4 times)",
        ENGINES,
        1536,
        (2.0, 2.0),
        partial(_continuous_over_static, 1536),
        "Static batches of 4 against the 12 requests that 8,100 tokens hold, in one engine, so that nothing "
        "but the policy differs. With 4 requests at most in both it is 1.9. The published engines are two: "
        "FasterTransformer's kernels against PyTorch's in Ray Serve and TGI, which pad OPT's batches.",
    ),
    _row(
        "continuous-over-static-512",
        "continuous over static batching: 2 to 3 times",
        ENGINES,
        512,
        (2.0, 3.0),
        partial(_continuous_over_static, 512),
        f"The settings are those of {BLOG}.",
        "quoted without a source (none was found)",
    ),
)
