"""Mooncake traces: JSONL with timestamp [ms], input_length, output_length and hash_ids.

A hash id stands for a block of the prompt and all before it, so equal leading ids are a shared prefix.
Source: https://github.com/kvcache-ai/Mooncake (FAST25-release/traces); Qin et al., FAST'25.
"""

from __future__ import annotations

from array import array
from itertools import islice
from pathlib import Path

import numpy as np

from ....errors import TraceError
from ....units import MS_PER_S
from ..arrange import from_zero
from ..content import block_contents
from ..demand import Demand
from ..spec import MooncakeSpec
from .lines import count, field, instant, json_rows
from .mooncake_sessions import find_sessions


def load_mooncake(spec: MooncakeSpec, path: Path) -> Demand:
    """Returns the rows in the order of the file, arrivals [s] from the earliest one.

    Raises: TraceError naming the first malformed line.
    """
    stamps, prompts, outputs = array("d"), array("q"), array("q")
    block_ids, ends = array("q"), array("q")
    for line, row in islice(json_rows(path), spec.num_requests):
        stamps.append(instant(row, "timestamp", path, line))
        prompts.append(count(row, "input_length", path, line))
        outputs.append(count(row, "output_length", path, line))
        num_ids = _add_ids(block_ids, field(row, "hash_ids", path, line), path, line)
        expected = -(-prompts[-1] // spec.block_tokens)
        if num_ids != expected:
            what = f"{num_ids} hash_ids for {prompts[-1]} tokens in blocks of {spec.block_tokens}"
            raise TraceError(path, line, f"{what}, expected {expected}")
        ends.append(len(block_ids))
    if not stamps:
        raise TraceError(path, None, "holds no requests")
    prompt_tokens = np.array(prompts)
    demand = Demand(
        from_zero(np.array(stamps)) / MS_PER_S,
        prompt_tokens,
        np.array(outputs),
        contents=block_contents(np.array(block_ids), np.array(ends), prompt_tokens, spec.block_tokens),
        origin=f"mooncake trace {spec.path}",
    )
    if spec.sessions != "none":
        blocks, last = np.array(block_ids), np.array(ends)
        found = find_sessions(demand, blocks, last, spec.block_tokens)
        demand.session_id, demand.turn = found.session_id, found.turn
        demand.parents = found.parents if spec.sessions == "follow" else None
    return demand


def _add_ids(block_ids: array[int], ids: object, path: Path, line: int) -> int:
    if not isinstance(ids, list):
        raise TraceError(path, line, f"hash_ids must be a list (got {type(ids).__name__})")
    wrong = next((value for value in ids if type(value) is not int or not 0 <= value < 2**63), None)
    if wrong is not None:
        raise TraceError(path, line, f"hash_ids must be whole numbers >= 0 (got {wrong!r})")
    block_ids.extend(ids)
    return len(ids)
