"""Static batching's rules one by one, each with numbers worked out by hand.

Source: Hugging Face transformers generation/utils.py; NVIDIA Triton's dynamic batcher.
"""

from __future__ import annotations

import numpy as np
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.scheduler.static import StaticSpec

from .drive import Story, admitted, finishing
from .engine_laws import MODEL, Rows, loads


def spec(**fields: object) -> StaticSpec:
    return StaticSpec().model_copy(update=fields)


def story(spec: StaticSpec, num_slots: int = 100_000) -> Story:
    return Story(spec, num_blocks=num_slots, block_size=1)


def test_outputs_of_10_100_and_1000_take_1000_steps_of_3_rows_37_percent_useful() -> None:
    it = story(spec())
    for output_tokens in (10, 100, 1000):
        it.add(50, output_tokens)
    steps = [it.run() for _ in range(1000)]
    rows = [batch.computed.num_sampled for batch in steps if batch.computed is not None]
    assert rows == [3] * 1000
    useful = sum(batch.num_sampled for batch in steps)
    assert (useful, round(useful / sum(rows), 2)) == (1110, 0.37)
    assert [finishing(batch) for batch in steps[:-1]] == [[]] * 999
    assert sorted(finishing(steps[-1])) == [0, 1, 2]


def test_prompts_are_padded_to_the_longest_and_so_are_all_contexts() -> None:
    it = story(spec())
    it.add(10, 5)
    it.add(30, 3)
    first = it.run()
    assert first.computed is not None and first.computed.chunks == ((30, 0, 2),)
    assert (first.num_tokens, first.computed.num_tokens) == (40, 60)
    third = it.run(2)
    # The second decode step: both rows see 30 + 2 tokens, padding included; really 12 and 32.
    assert third.computed is not None and third.computed.decodes == (1, 2, 64, 32)
    assert third.decodes == (1, 2, 44, 32)
    fourth = it.run()
    # The second request has ended; its row goes on.
    assert fourth.computed is not None and fourth.computed.decodes == (1, 2, 66, 33)
    assert fourth.decodes == (1, 1, 13, 13)


def test_nobody_joins_a_running_batch_and_all_its_memory_stays_taken() -> None:
    it = story(spec())
    it.add(10, 2)
    it.add(10, 6)
    it.run(3)
    # The first has ended after 10 + 1 tokens, the second has computed 10 + 2.
    assert it.num_used == 23
    it.add(10, 2)
    assert [admitted(it.run()) for _ in range(3)] == [[]] * 3
    assert it.num_used == 0
    assert admitted(it.run()) == [2]


def test_a_batch_is_a_rectangle_and_takes_no_row_that_would_not_fit() -> None:
    # 3 rows of max(prompt) 30 + max(answer) 20 take 150 slots; 149 hold two.
    for num_slots, num_rows in ((150, 3), (149, 2)):
        it = story(spec(), num_slots)
        for prompt_tokens, output_tokens in ((30, 5), (10, 20), (5, 5)):
            it.add(prompt_tokens, output_tokens)
        assert len(admitted(it.run())) == num_rows


def test_the_legacy_cache_needs_its_memory_twice() -> None:
    for cache, num_rows in (("dynamic", 4), ("legacy", 2)):
        it = story(spec(cache=cache), 100)
        for _ in range(4):
            it.add(20, 5)
        assert len(admitted(it.run())) == num_rows


def test_the_first_request_of_a_batch_waits_for_others_until_it_is_due() -> None:
    it = story(spec(max_batch_size=2, max_queue_delay_s=0.5))
    scheduler = it.scheduler
    scheduler.now = 1.0
    it.add(10, 5)
    assert scheduler.schedule() is None and scheduler.due_at == 1.5
    scheduler.now = 1.5
    assert admitted(it.run()) == [0]


def test_a_full_batch_waits_for_nothing() -> None:
    it = story(spec(max_batch_size=2, max_queue_delay_s=0.5))
    it.add(10, 5)
    it.add(10, 5)
    assert admitted(it.run()) == [0, 1]


def test_in_a_whole_run_the_delay_passes_and_the_answers_return_together() -> None:
    # Both are in one batch, begun 1 s after the first: prefill and 4 decode steps of 10 ms.
    demand = make_demand([(0.0, 10, 2), (0.4, 10, 5)])
    recorder, _ = play(demand, spec=spec(max_queue_delay_s=1.0), num_blocks=100, block_size=1)
    assert np.allclose(recorder.first_token_at, 1.01)
    assert np.allclose(recorder.finished_at, 1.05)


def test_padding_and_ended_rows_take_their_time() -> None:
    # 2 rows of 30 padded tokens at 1 ms each; then 4 decode steps of 2 rows, one of them ended after 2.
    model = ToyStepModel(base_s=0.0, token_s=0.001, decode_s=0.001)
    demand = make_demand([(0.0, 10, 5), (0.0, 30, 3)])
    recorder, engines = play(demand, spec=spec(), model=model, num_blocks=100, block_size=1)
    assert np.allclose(recorder.first_token_at, 0.060)
    assert np.allclose(recorder.finished_at, 0.068)
    # Tokens are those of the requests: 40 of prompts, 4 and 2 of answers.
    assert engines[0].journal.totals.num_tokens == 46


@given(
    rows=loads(),
    max_batch_size=st.integers(1, 6),
    delay_s=st.sampled_from([0.0, 0.0501, 0.7003]),
    num_slots=st.integers(100, 600),
)
def test_laws_hold_under_random_load(rows: Rows, max_batch_size: int, delay_s: float, num_slots: int) -> None:
    # An answer returns when its batch ends, so that gaps do not add up to when it returns.
    static = spec(max_batch_size=max_batch_size, max_queue_delay_s=delay_s)
    recorders = []
    for leaps in (True, False):
        recorder, _ = play(
            make_demand(rows),
            spec=static,
            model=MODEL,
            num_blocks=num_slots,
            block_size=1,
            leaps=leaps,
            checks_blocks=True,
        )
        done = ~np.isnan(np.asarray(recorder.finished_at, dtype=float))
        assert done.all()
        assert recorder.gaps.count == int((np.asarray(recorder.output_tokens) - 1).sum())
        recorders.append(recorder)
    for rows_of in (request_rows, step_rows):
        np.testing.assert_allclose(rows_of(recorders[0]), rows_of(recorders[1]), rtol=1e-9, atol=1e-9)
