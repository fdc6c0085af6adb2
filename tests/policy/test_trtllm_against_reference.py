"""The counting scheduler of TensorRT-LLM against the literal one, step by step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.policy.scheduler.trtllm import TrtllmSpec

from .drive import Story
from .trtllm_reference import LiteralTrtllm

BLOCK_SIZE = 4
Arrival = tuple[int, int, int]  # step, prompt, answer


@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=14
    ),
    policy=st.sampled_from(["GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"]),
    chunking=st.sampled_from([None, "FIRST_COME_FIRST_SERVED", "EQUAL_PROGRESS"]),
    max_batch_size=st.integers(1, 8),
    max_num_tokens=st.integers(80, 160),
    num_blocks=st.integers(18, 40),
)
def test_both_decide_the_same_steps(
    arrivals: list[Arrival],
    policy: str,
    chunking: str | None,
    max_batch_size: int,
    max_num_tokens: int,
    num_blocks: int,
) -> None:
    settings = {"max_batch_size": max_batch_size, "capacity_scheduler_policy": policy}
    if chunking is not None:
        settings |= {"enable_chunked_prefill": True, "context_chunking_policy": chunking}
        max_num_tokens //= 4
    spec = TrtllmSpec.model_validate(
        {**settings, "max_num_tokens": max_num_tokens, "disable_overlap_scheduler": True}
    )
    it = Story(spec, num_blocks=num_blocks, block_size=BLOCK_SIZE)
    literal = LiteralTrtllm(
        policy,
        num_blocks,
        BLOCK_SIZE,
        max_batch_size,
        max_num_tokens,
        is_chunked=chunking is not None,
        is_fair=chunking == "EQUAL_PROGRESS",
    )
    due, step = sorted(arrivals), 0
    while due or literal.active:
        while due and due[0][0] <= step:
            _, prompt, answer = due.pop(0)
            if it.add(prompt, answer) is None:
                literal.add(it.num_added - 1, prompt, answer)
        step += 1
        if literal.active:
            _compare(it, literal)


def _compare(it: Story, literal: LiteralTrtllm) -> None:
    decided = literal.step()
    batch = it.step()
    ones = [before + 1 for _, size, before in decided.contexts if size == 1]
    contexts = [request.computed for request in decided.generating] + ones
    chunks = [(size, before, 1) for _, size, before in decided.contexts if size > 1]
    assert sorted(batch.chunks) == sorted(chunks)
    assert batch.decodes[1:] == (len(contexts), sum(contexts), max(contexts, default=0))
    assert batch.num_preempted == len(decided.paused)
    assert sorted(live.index for live in batch.finishing) == sorted(one.index for one in decided.ended)
    it.end(batch)
