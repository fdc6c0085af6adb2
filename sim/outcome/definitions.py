"""What each number of the summary means, printed beside it: tools of the field disagree on most of them.

Names and formulas are those of `vllm bench serve` wherever it has them.
Source: vLLM vllm/benchmarks/serve.py, `calculate_metrics`.
"""

from __future__ import annotations

from ..world.gaps import RELATIVE_ERROR

DEFINITIONS: dict[str, str] = {
    "ttft_ms": "time to first token: first_token_at - arrived_at, measured at the server (no network, HTTP "
    "or tokenizer unless the scenario has them)",
    "ttfo_ms": "time to first output, the first token that is not reasoning: first_output_at - arrived_at",
    "tpot_ms": "time per output token after the first: (e2el_ms - ttft_ms) / (output_tokens - 1); requests "
    "with one output token are left out (and count as 0 for goodput)",
    "itl_ms": "inter-token latency: every gap between two tokens of one request, of all requests pooled, "
    f"unfinished ones included; percentiles to a relative error of {RELATIVE_ERROR:.2%}, the rest exact",
    "e2el_ms": "end-to-end latency: finished_at - arrived_at",
    "queue_ms": "time in the queue: scheduled_at (first time) - arrived_at",
    "mean, median, std, pNN": "over completed requests; std of the population; percentiles interpolate "
    "linearly (numpy's default)",
    "duration": "last finished_at - first arrived_at [s]; vllm bench counts from the start of sending",
    "completed": "requests that got their last token",
    "failed": "rejected + given_up + unfinished",
    "rejected": "requests turned away at the door, by reason in `rejections`",
    "unservable": "rejected requests that could never be served, however long they waited",
    "given_up": "requests lost in a crash and not sent again, or sent when no replica was left",
    "failures": "given_up by reason",
    "unfinished": "requests that waited, ran or had not arrived when the run was cut off",
    "truncated": "completed requests whose answer was cut at the model's context limit",
    "preempted": "requests that lost their KV cache at least once; `num_preemptions` counts the times",
    "recomputed_tokens": "tokens computed once more after a preemption, completed requests",
    "cached_tokens": "prompt tokens found in the prefix cache at first admission, completed requests",
    "total_input_tokens": "prompt_tokens of completed requests, image tokens included",
    "total_output_tokens": "output_tokens of completed requests, reasoning included",
    "total_reasoning_tokens": "output_tokens of completed requests that are reasoning",
    "total_answer_tokens": "total_output_tokens - total_reasoning_tokens",
    "reasoning_throughput": "total_reasoning_tokens / duration [tok/s]",
    "answer_throughput": "total_answer_tokens / duration [tok/s]",
    "sessions": "conversations; turn_ms: first arrived_at to last finished_at of a turn's requests (tool "
    "calls, branches), of turns that finished; by_turn: prompt tokens of completed requests, how many "
    "of them were cached, mean TTFT, the last line of all later turns; null without conversations",
    "request_throughput": "completed / duration [req/s]",
    "request_goodput": "completed requests within every limit of `slo` / duration [req/s]; null without one",
    "output_throughput": "total_output_tokens / duration [tok/s]",
    "total_token_throughput": "(total_input_tokens + total_output_tokens) / duration [tok/s]",
    "output_tokens_per_s_per_user": "1000 / mean_tpot_ms [tok/s]",
    "max_output_tokens_per_s": "output tokens of the busiest second, in buckets of 1 s from the first "
    "arrival on, all requests; null if steps were not recorded",
    "max_concurrent_requests": "most completed requests in the system at once, from arrival to last token; "
    "at equal times departures come before arrivals",
    "span_s": "first arrival to the end of the simulated run [s], the base of all shares",
    "extrapolated_steps": "steps priced outside the range for which the hardware profile was measured",
    "busy_share": "time with a step running / span_s (or the time it was up); mean over replicas",
    "term_share": "time of each cost term / span_s, these sum to busy_share; mean over replicas",
    "bubble_share": "of the pipeline stages' time with a step running, that in which they computed nothing; "
    "null without stages",
    "mfu": "model FLOPs utilisation: floating-point operations of all steps, recomputation included / "
    "(peak FLOP/s of all replicas x span_s)",
    "mbu": "memory bandwidth utilisation: HBM bytes moved by all steps / (peak bytes/s of all replicas x "
    "span_s)",
    "prefix_cache_hit_rate": "(prefix_hit_tokens + hit_tokens of all tiers) / prefix_query_tokens of all "
    "replicas; null without lookups",
    "kv_tiers": "tiers under HBM: prompt tokens hit in them (`hit_tokens`), loaded into HBM, found but "
    "computed again as that was faster, prefetched; bytes read and written; blocks that came in and were "
    "evicted; `usd`: capacity x hours x price; `store`: of a store of several nodes, blocks lost with "
    "their last copy, writes refused for want of nodes, copies in, evicted and lost, bytes rebuilt and "
    "replicated between nodes, loads that failed, and tokens computed again although stored, by cause",
    "links": "what PCIe, disks and networks carried for tiers; utilisation: num_bytes / (bytes_per_s x "
    "span_s)",
    "gpu_hours": "GPUs x time that they were paid for",
    "cost_usd": "gpu_hours at each pool's price per GPU-hour; null if one is unknown",
    "scaling": "replicas that autoscalers launched and drained; by pool the most that served, the mean paid "
    "for, and [at s, serving, paid] after each change; null without autoscalers and faults",
    "faults": "availability: of the time in which replicas should have served, the share in which they did; "
    "lost_requests: ended by a crash, each time; lost_tokens: that crashed replicas computed for answers "
    "that they did not finish; null without faults",
    "tenants": "how each tenant's requests fared; slo_met: finished within every limit of `slo`",
    "kv_waste": "token slots x time that requests hold, by what is in them: useful, reserved "
    "(filled later), internal (never filled), external (free, no hole fits who waits); null without steps",
    "max_used_blocks": "most KV blocks in use after any step; null if steps were not recorded",
}
