"""docs/cost-model.md: its code runs, its sum of memory and its default efficiencies are the real ones."""

from __future__ import annotations

import re
from pathlib import Path

from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from simllm.hwmodels.memory import memory_budget
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.precision import Precision
from simllm.hwmodels.roofline import Efficiency
from simllm.hwmodels.roofline_step import TERMS

TEXT = (Path(__file__).parents[2] / "docs" / "cost-model.md").read_text(encoding="utf-8")


def test_the_example_says_which_profile_it_uses_and_prints_every_term(capsys):
    exec(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0], {})
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("h200-sxm, calibrated: ")
    assert tuple(line.split()[0] for line in lines) == TERMS


def test_every_term_has_a_row():
    assert tuple(re.findall(r"^\| `(\w+)` \| [a-zQ]", TEXT, re.MULTILINE))[: len(TERMS)] == TERMS


def test_the_efficiencies_are_the_defaults():
    defaults = Efficiency()
    stated = re.findall(r"^\| `(\w+)` \| (0\.\d+) \|", TEXT, re.MULTILINE)
    assert {name: float(value) for name, value in stated} == {
        name: getattr(defaults, name) for name in Efficiency.__dataclass_fields__
    }


def test_the_sum_of_memory_is_what_describe_prints(h200, llama_8b):
    budget = memory_budget(
        llama_8b,
        h200,
        precision=Precision.on(h200, weight="bf16", activation="bf16", kv="bf16"),
        parallel=ParallelSpec(),
        block_size=16,
        gpu_memory_utilization=0.9,
        max_num_batched_tokens=2048,
        max_num_seqs=128,
        cuda_graph=CudaGraphSizes(vllm_capture_sizes(128)),
    )
    assert budget.describe() in TEXT
