"""The printed block: vLLM's layout, then simllm's own section."""

from __future__ import annotations

from collections.abc import Callable

from simllm.sim.outcome.console import benchmark_block, speed_line
from simllm.sim.outcome.meta import Slo
from simllm.sim.outcome.results import Result
from simllm.sim.world.recorder import Recorder

from .handmade import make_demand, make_meta, make_totals

BLOCK = """\
============ Serving Benchmark Result ============
Successful requests:                     3
Failed requests:                         1
Benchmark duration (s):                  2.02
Total input tokens:                      112
Total generated tokens:                  9
Request throughput (req/s):              1.49
Output token throughput (tok/s):         4.46
Peak output token throughput (tok/s):    4.00
Peak concurrent requests:                2.00
Total token throughput (tok/s):          59.90
---------------Time to First Token----------------
Mean TTFT (ms):                          400.00
Median TTFT (ms):                        400.00
P99 TTFT (ms):                           498.00
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          165.00
Median TPOT (ms):                        165.00
P99 TPOT (ms):                           199.30
---------------Inter-token Latency----------------
Mean ITL (ms):                           153.33
Median ITL (ms):                         130.01
P99 ITL (ms):                            292.98
----------------End-to-end Latency----------------
Mean E2EL (ms):                          706.67
Median E2EL (ms):                        800.00
P99 E2EL (ms):                           1015.60
-----------------Simulated Engine-----------------
Rejected requests:                       1
Preemptions:                             0
Peak KV cache usage (%):                 6.00
Prefix cache hit rate (%):               14.29
Replica busy (%):                        90.10
MFU (%):                                 10.00
MBU (%):                                 25.00
Hardware profile:                        toy (datasheet)
=================================================="""


def test_block_is_laid_out_as_vllm_bench_serve(result: Result) -> None:
    assert benchmark_block(result.summary()) == BLOCK


def test_goodput_is_printed_where_an_objective_is_set(build: Callable[..., Result]) -> None:
    block = benchmark_block(build(slo=Slo(ttft_ms=450)).summary())
    assert "\nRequest goodput (req/s):                 0.99\nOutput token throughput" in block


def test_what_is_unknown_is_a_dash() -> None:
    recorder = Recorder(4, record_steps=False)
    recorder.replicas.append(make_totals())
    block = benchmark_block(Result(recorder, make_demand(), make_meta()).summary())
    assert "\nMean TTFT (ms):                          -\n" in block
    assert "\nUnfinished requests:                     4\n" in block


def test_speed_relates_simulated_to_real_time(result: Result) -> None:
    assert speed_line(result.summary(), 0.01) == "simulated 2.0 s in 0.01 s, 202 times real time"
    assert speed_line(result.summary(), 0.0) == "simulated 2.0 s in 0.00 s"
