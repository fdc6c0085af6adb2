"""Writes into README.md what its scenario prints: run it after a change of the models, a test compares."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from simllm import simulate
from simllm.sim.outcome.console import benchmark_block
from simllm.sim.scenario import parse_scenario

README = Path(__file__).parent.parent / "README.md"
_SCENARIO = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
PRINTED = re.compile(r"(?<=```text\n).*?(?=```)", re.DOTALL)


def printed(readme: str) -> str:
    """Returns what `simllm run` prints for the first scenario in a text."""
    found = _SCENARIO.search(readme)
    assert found is not None, "the README shows a scenario"
    return benchmark_block(simulate(parse_scenario(yaml.safe_load(found.group(1)))).summary()) + "\n"


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    block = printed(text)
    README.write_text(PRINTED.sub(lambda _: block, text, count=1), encoding="utf-8")
