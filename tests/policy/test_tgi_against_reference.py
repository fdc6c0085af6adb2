"""TGI's scheduler against its router's loops written down literally, step by step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.policy.scheduler.tgi import TgiSpec

from .drive import Story
from .tgi_reference import Entry, LiteralTgi

BLOCK_SIZE = 4
Arrival = tuple[int, int, int]  # step, prompt, answer


@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=20
    ),
    version=st.sampled_from(["2023-06", "v2"]),
    ratio=st.sampled_from([0.0, 0.3, 1.2]),
    max_waiting_tokens=st.integers(0, 20),
    max_new_tokens=st.sampled_from([None, 40]),
    prefill_budget=st.integers(40, 120),
    num_blocks=st.integers(44, 120),
)
def test_both_decide_the_same_steps(
    arrivals: list[Arrival],
    version: str,
    ratio: float,
    max_waiting_tokens: int,
    max_new_tokens: int | None,
    prefill_budget: int,
    num_blocks: int,
) -> None:
    is_old = version == "2023-06"
    spec = TgiSpec(
        version=version,  # type: ignore[arg-type]
        waiting_served_ratio=ratio,
        max_waiting_tokens=max_waiting_tokens,
        max_new_tokens=max_new_tokens,
        max_batch_prefill_tokens=None if is_old else prefill_budget,
    )
    it = Story(spec, num_blocks=num_blocks, block_size=BLOCK_SIZE)
    total = num_blocks * BLOCK_SIZE // (1 + is_old)
    literal = LiteralTgi(total, BLOCK_SIZE, spec.prefill_budget, ratio, max_waiting_tokens)
    due, step = sorted(arrivals), 0
    router = literal.steps()
    while due or literal.entries or literal.running:
        while due and due[0][0] <= step:
            _, prompt, answer = due.pop(0)
            if it.add(prompt, answer) is None:
                # Nobody can ask for more than the server could hold.
                asked = max(answer, min(max_new_tokens or answer, total - prompt))
                literal.entries.append(Entry(it.num_added - 1, prompt, asked, answer))
        step += 1
        decided = next(router, None)
        if decided is None:
            router = literal.steps()
            decided = next(router, None)
        if decided is not None:
            _compare(it, *decided)


def _compare(it: Story, prompts: list[Entry], decoding: list[Entry]) -> None:
    batch = it.run()
    ones = [1 for entry in prompts if entry.prompt == 1]
    contexts = [entry.context for entry in decoding] + ones
    chunks = [(entry.prompt, 0, 1) for entry in prompts if entry.prompt > 1]
    assert list(batch.chunks) == chunks
    assert batch.decodes[1:] == (len(contexts), sum(contexts), max(contexts, default=0))
    assert [live.index for live in batch.admitted] == [entry.index for entry in prompts]
    assert batch.num_waiting == it.scheduler.num_waiting
