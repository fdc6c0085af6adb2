"""Sliding windows and attention sinks: blocks come free, and leaps stay straight."""

from __future__ import annotations

import math

import numpy as np
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.kv.blocks import NO_HIT
from simllm.sim.policy.kv.window import WindowDecodeSet, WindowKvCache
from simllm.sim.policy.live_request import LiveRequest
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import Request

SIZE = 4


def window(num_blocks: int = 50, window_tokens: int = 8, sink_tokens: int = 0) -> WindowKvCache:
    return WindowKvCache(
        num_blocks=num_blocks, block_size=SIZE, window_tokens=window_tokens, sink_tokens=sink_tokens
    )


def admitted(kv: WindowKvCache, prompt_tokens: int, output_tokens: int) -> LiveRequest:
    live = LiveRequest(Request(0, 0.0, prompt_tokens, output_tokens), output_tokens)
    kv.admit(live, NO_HIT, prompt_tokens)
    live.num_computed, live.num_sampled = prompt_tokens, 1
    return live


def test_a_window_of_8_tokens_lies_in_3_blocks_of_4_and_sinks_in_one_more() -> None:
    assert window().most_blocks == 3
    assert window(sink_tokens=2).most_blocks == 4


def test_a_long_prompt_gives_up_its_blocks_when_it_begins_to_decode() -> None:
    # 40 tokens fill 10 blocks, of which 3 stay; nothing more is taken for the 30 tokens of the answer.
    kv = window()
    decodes = WindowDecodeSet(kv)
    live = admitted(kv, 40, 30)
    assert kv.num_free == 40
    decodes.join(live, 1)
    assert kv.num_free == 47
    assert sum(decodes.blocks_for(step) for step in range(1, 30)) == 0
    kv.release(live, is_finished=True)
    assert kv.num_free == 50


def test_a_short_prompt_takes_blocks_until_its_window_is_full() -> None:
    # Contexts 6, 7, ... begin blocks at 9 and, if the window were longer, at 13: the fourth block.
    kv = window()
    decodes = WindowDecodeSet(kv)
    decodes.join(admitted(kv, 5, 30), 1)
    assert [decodes.blocks_for(step) for step in range(1, 12)] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_a_leap_ends_before_a_window_is_full() -> None:
    # In step s the context is 5 + s; it would begin its fourth block, at 13, in step 8.
    kv = window()
    decodes = WindowDecodeSet(kv)
    decodes.join(admitted(kv, 5, 30), 1)
    found = decodes.ahead(0, kv.num_free)
    assert found is not None and found[0] == 7 and not found[2]


REQUESTS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 90), st.integers(1, 60)), min_size=1, max_size=25
)


@settings(deadline=None, max_examples=60)
@given(
    rows=REQUESTS,
    sizes=st.tuples(st.sampled_from([24, 40, 80]), st.integers(1, 40), st.sampled_from([0, 3])),
    spec=st.builds(
        VllmV1Spec,
        max_num_seqs=st.sampled_from([3, 8]),
        max_num_batched_tokens=st.sampled_from([8, 64]),
        async_scheduling=st.booleans(),
    ),
)
def test_leaps_change_nothing_and_blocks_add_up(
    rows: list[tuple[float, int, int]], sizes: tuple[int, int, int], spec: VllmV1Spec
) -> None:
    model = ToyStepModel(base_s=math.pi / 300, token_s=0.0007, context_s=1.3e-5)
    leapt, plain = (
        play(
            make_demand(sorted(rows)),
            spec=spec,
            model=model,
            leaps=leaps,
            checks_blocks=True,
            make_kv=lambda: window(*sizes),
        )[0]
        for leaps in (True, False)
    )
    np.testing.assert_allclose(request_rows(leapt), request_rows(plain), rtol=1e-9)
    np.testing.assert_allclose(step_rows(leapt), step_rows(plain), rtol=1e-9, atol=1e-12)
