"""How prompts that do not all fit into a step share it, by TensorRT-LLM's two policies.

Source: TensorRT-LLM cpp/tensorrt_llm/batch_manager/microBatchScheduler.cpp (setCtxRequestsChunkSize).
"""

from __future__ import annotations

from collections.abc import Sequence


def first_come_first_served(lacking: Sequence[int], capacity: int, unit: int) -> list[int]:
    """Returns each prompt's chunk: all it lacks, or what is left, then in whole units.

    1,000 tokens for prompts of 700 and 700 in units of 32: 700, and 300 cut down to 288.
    """
    sizes = []
    for num_tokens in lacking:
        size = min(num_tokens, capacity)
        if size < num_tokens:
            size -= size % unit
        sizes.append(size)
        capacity -= size
    return sizes


def equal_progress(lacking: Sequence[int], capacity: int, unit: int) -> list[int]:
    """Returns each prompt's chunk: a unit for each in turn, until nobody's next one fits.

    1,000 tokens for prompts of 700 and 700 in units of 32: 15 rounds of 64, then one unit more for the first.
    """
    sizes = [0] * len(lacking)
    has_grown = True
    while has_grown and capacity > 0:
        has_grown = False
        for place, num_tokens in enumerate(lacking):
            more = min(unit, num_tokens - sizes[place])
            if 0 < more <= capacity:
                sizes[place] += more
                capacity -= more
                has_grown = True
    return sizes
