"""The examples of docs/workloads.md are valid, so that they can be copied."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from simllm.sim.workload import WorkloadSpec
from simllm.sim.workload.arrival_spec import ArrivalSpec
from simllm.sim.workload.length_spec import LengthSpec

TEXT = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(block)["workload"] for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.S)]
CELLS = [yaml.safe_load(cell) for cell in re.findall(r"^\| `(\{kind: .*?\})` \|", TEXT, re.M)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["kind"])
def test_an_example_of_the_document_is_valid(example: dict[str, object]) -> None:
    TypeAdapter(WorkloadSpec).validate_python(example)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell["kind"])
def test_a_line_of_a_table_is_valid(cell: dict[str, object]) -> None:
    TypeAdapter(ArrivalSpec | LengthSpec).validate_python(cell)


def test_every_kind_has_an_example() -> None:
    assert {example["kind"] for example in EXAMPLES} == set(
        TypeAdapter(WorkloadSpec).json_schema()["discriminator"]["mapping"]
    )


def test_conversations_of_the_document_are_json() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", TEXT, re.S)
    assert all("conversations" in json.loads(line) for line in block.splitlines())
