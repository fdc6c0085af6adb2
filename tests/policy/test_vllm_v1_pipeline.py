"""vLLM V1's batch queue: no step holds a request whose token is on its way."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.sim.policy.kv.plain import PlainKvCache
from simllm.sim.policy.scheduler.vllm_v1_pipeline import PipelinedVllmV1Scheduler
from simllm.sim.policy.scheduler.vllm_v1_spec import VllmV1Spec
from simllm.sim.request import Request


def scheduler(num_blocks: int = 1000, budget: int = 100, max_num_seqs: int = 16) -> PipelinedVllmV1Scheduler:
    spec = VllmV1Spec(max_num_batched_tokens=budget, max_num_seqs=max_num_seqs, async_scheduling=False)
    return PipelinedVllmV1Scheduler(
        spec, kv=PlainKvCache(num_blocks=num_blocks, block_size=4), max_model_len=10_000
    )


def add(policy: PipelinedVllmV1Scheduler, *lengths: tuple[int, int]) -> None:
    for index, (prompt, output) in enumerate(lengths):
        assert policy.add(Request(index, 0.0, prompt, output)) is None


def back(policy: PipelinedVllmV1Scheduler, batch) -> None:
    policy.returned(batch.step)
    if batch.finishing:
        policy.finish(batch.finishing)


def test_decodes_wait_for_their_token():
    policy = scheduler()
    add(policy, (60, 5))
    first = policy.schedule()
    assert [chunk.query_len for chunk in first.chunks] == [60]
    assert policy.schedule() is None  # its first token is on its way
    back(policy, first)
    assert policy.schedule().decodes.count == 1


def test_prompts_beyond_the_budget_make_two_micro_batches_that_take_turns():
    policy = scheduler()
    add(policy, (60, 9), (60, 9))
    one = policy.schedule()  # 60 and 40 tokens
    other = policy.schedule()  # the last 20
    assert [chunk.query_len for chunk in one.chunks] == [60, 40]
    assert [chunk.query_len for chunk in other.chunks] == [20]
    for _ in range(3):
        back(policy, one)
        one = policy.schedule()
        back(policy, other)
        other = policy.schedule()
        assert (one.decodes.count, other.decodes.count) == (1, 1)
    # 60 prompt tokens, and 3 decodes in each.
    assert one.decodes.sum_context == other.decodes.sum_context == 63


def test_prompts_that_fit_into_one_step_stay_one_micro_batch():
    policy = scheduler()
    add(policy, (40, 9), (40, 9))
    first = policy.schedule()
    assert policy.schedule() is None
    back(policy, first)
    assert policy.schedule().decodes.count == 2


def test_a_chunk_follows_the_one_before_it_at_once():
    policy = scheduler(budget=50)
    add(policy, (120, 2))
    chunks = [policy.schedule().chunks[0] for _ in range(3)]
    assert [(chunk.query_len, chunk.context_len) for chunk in chunks] == [(50, 0), (50, 50), (20, 100)]


def test_a_batch_says_which_step_its_decodes_go_on_from():
    policy = scheduler()
    add(policy, (60, 9), (60, 9))
    one, other = policy.schedule(), policy.schedule()
    back(policy, one)
    back(policy, other)
    assert (policy.schedule().follows, policy.schedule().follows) == (1, 2)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 30)), min_size=1, max_size=25),
    depth=st.integers(1, 4),
    num_blocks=st.integers(30, 80),
    budget=st.integers(16, 60),
)
def test_every_request_gets_its_tokens_one_at_a_time_and_blocks_add_up(lengths, depth, num_blocks, budget):
    policy = scheduler(num_blocks, budget)
    add(policy, *lengths)
    flights, tokens, ended = [], dict.fromkeys(range(len(lengths)), 0), set()
    for _ in range(20_000):
        while len(flights) < depth and (batch := policy.schedule()) is not None:
            flights.append(batch)
            policy.check()
        if not flights:
            break
        batch = flights.pop(0)
        back(policy, batch)
        policy.check()
        for live in batch.finishing:
            ended.add(live.index)
            tokens[live.index] = live.num_output_tokens
    assert ended == set(tokens)
    assert tokens == {index: output for index, (_, output) in enumerate(lengths)}
    assert policy.kv.num_free == policy.kv.num_blocks
    assert (policy.num_running, policy.num_waiting) == (0, 0)
