"""KsanaLLM's rules one by one, each with numbers worked out by hand.

Source: KsanaLLM src/ksana_llm/batch_scheduler/strategy/continuous_batching.cpp, commit c451219c.
"""

from __future__ import annotations

import pytest
from harness import kv_for, make_demand, play
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from toys import ToyStepModel

from simllm.sim.policy.kv.ksana import KsanaKvCache
from simllm.sim.policy.moves import When
from simllm.sim.policy.scheduler.ksana import KsanaScheduler, KsanaSpec
from simllm.sim.policy.scheduler.swap import BlockCopies
from simllm.sim.request import Request

from .drive import Story, admitted, chunks, finishing
from .engine_laws import Rows, check_laws, loads

SPEC = KsanaSpec()


def spec(**fields: object) -> KsanaSpec:
    return SPEC.model_copy(update=fields)


def story(
    settings: KsanaSpec = SPEC, *, num_blocks: int = 1000, block_size: int = 16, caches: bool = False
) -> Story:
    return Story(settings, num_blocks=num_blocks, block_size=block_size, caches=caches)


def end_moves(it: Story) -> None:
    """Ends all moves under way."""
    moves, it.scheduler.moves = it.scheduler.moves, []
    for move in moves:
        it.scheduler.moved(move)


def used_by(prompt_tokens: int) -> int:
    it = story()
    it.add(prompt_tokens, 2)
    it.run()
    return it.num_used


def test_a_request_has_one_slot_beyond_its_tokens() -> None:
    assert [used_by(num_tokens) for num_tokens in (16, 15, 32)] == [2, 1, 3]


@pytest.mark.parametrize(("num_free", "is_admitted"), [(27, True), (26, False)])
def test_beside_10_decodes_a_prompt_of_100_tokens_needs_27_free_blocks(
    num_free: int, is_admitted: bool
) -> None:
    # 100 // 16 + 1 = 7 of its own and 2.0 * 10; the decodes hold one each.
    it = story(spec(launch_block_threshold=0.0), num_blocks=10 + num_free)
    for _ in range(10):
        it.add(3, 9)
    it.run()
    scheduler = it.scheduler
    assert isinstance(scheduler, KsanaScheduler)
    scheduler._spec = SPEC
    it.add(100, 2)
    assert admitted(it.run()) == ([10] if is_admitted else [])


def test_the_gate_counts_the_requests_before_the_last_admitted_one() -> None:
    # Nothing runs: the gate is 0, 0, then 2.0 * 1 blocks. 8 blocks hold 2 + 2 + 2, and 2 are left for it.
    it = story(num_blocks=8)
    for _ in range(4):
        it.add(20, 2)
    assert admitted(it.run()) == [0, 1, 2]


def test_a_swap_in_needs_6_blocks_and_one_for_a_full_one_and_24_beside_12_decodes() -> None:
    # 13 prompts of 3 hold a block each, but for one of 6 * 16 - 2 tokens: its second decode needs a seventh
    # block, and there is none.
    settings = spec(launch_block_threshold=0.0, max_batch_size=13, max_step_tokens=1 << 16)
    it = story(settings, num_blocks=18)
    it.add(94, 99)
    for _ in range(12):
        it.add(3, 99)
    assert it.run().num_sampled == 13
    assert it.run(2).num_preempted == 1
    end_moves(it)
    scheduler = it.scheduler
    assert isinstance(scheduler, KsanaScheduler)
    it.run()
    (live,) = scheduler._swapper.swapped.values()
    # 6 blocks lie on the host, and its next token fills the last of them.
    assert (live.num_computed, scheduler._swapper.num_needed(live)) == (95, 6 + 1)
    kv = it.kv
    assert isinstance(kv, KsanaKvCache)
    for num_more, stays in ((24, True), (1, False)):  # 6 + 1 + 2.0 * 12 = 31, of which 6 are free
        kv.num_blocks += num_more
        kv._num_unused += num_more
        it.run()
        assert bool(scheduler._swapper.swapped) is stays


def test_the_last_of_16_chunks_is_charged_with_4096_tokens() -> None:
    it = story(spec(split_fuse_token_num=256))
    it.add(4095, 1)
    it.add(1, 1)
    sizes = [chunks(it.run()) for _ in range(16)]
    # The other prompt, a decode to the kernels, is beside the first chunk: 256 + 1 tokens are charged.
    assert sizes == [[(256, 256 * number)] for number in range(15)] + [[(255, 3840)]]
    assert it.add(8000, 1) == "prompt_exceeds_max_model_len"


def test_a_step_is_charged_with_what_is_computed_already() -> None:
    # The second chunk of A counts 512 tokens: B with 500 does not fit beside it, though only 256 are new.
    it = story(spec(split_fuse_token_num=256, max_step_tokens=1000))
    it.add(700, 1)
    it.add(500, 1)
    it.add(500, 1)
    assert [chunks(it.run()) for _ in range(4)] == [
        [(256, 0), (256, 0), (256, 0)],
        [(256, 256)],  # 512 + 500 > 1000
        [(188, 512)],  # 700 + 500 > 1000
        [(244, 256), (244, 256)],
    ]


def test_the_longest_request_must_fit_a_step() -> None:
    with pytest.raises(ValidationError, match="max_step_tokens"):
        KsanaSpec(max_token_len=5000)


def test_of_those_that_arrive_together_the_longest_enters_first() -> None:
    it = story(spec(max_batch_size=1))
    for prompt_tokens in (10, 30, 20):
        it.add(prompt_tokens, 1)
    assert [chunks(it.run()) for _ in range(3)] == [[(30, 0)], [(20, 0)], [(10, 0)]]


def test_who_is_in_the_waiting_queue_keeps_its_place() -> None:
    it = story(spec(max_batch_size=2, max_step_tokens=100))
    it.add(90, 2)
    it.add(80, 1)
    it.run()  # the second one is in the queue, and there is room for one more
    it.add(70, 1)
    it.add(99, 1)
    assert [admitted(it.run()) for _ in range(3)] == [[1], [3], [2]]


def test_the_decode_that_finds_no_block_goes_to_the_host_itself_beside_the_steps() -> None:
    # 4 blocks of 4 tokens: A (6 tokens) and B (7) hold 2 each. A's second token takes it to the end of its
    # block: it wants a third one. So does B a step before, and B goes.
    it = story(spec(launch_block_threshold=0.0), num_blocks=4, block_size=4)
    it.add(6, 5)
    it.add(7, 5)
    it.run()
    batch = it.run()
    (move,) = it.scheduler.moves
    assert ([live.index for live in batch.paused], batch.decodes.count) == ([1], 1)
    assert (move.source, move.target, move.when, it.num_used) == ("hbm", "dram", When.BESIDE, 4)
    # Its blocks are still in use: A sits the next step out, and nothing is left to run.
    assert it.scheduler.schedule() is None


def test_nothing_to_run_means_a_sleep_of_100_ms() -> None:
    it = story(spec(launch_block_threshold=0.0), num_blocks=4, block_size=4)
    it.add(6, 5)
    it.add(7, 5)
    it.run(2)
    scheduler = it.scheduler
    scheduler.now = 1.0
    assert scheduler.schedule() is None
    scheduler.now = 1.03
    end_moves(it)
    assert (scheduler.schedule(), scheduler.due_at) == (None, pytest.approx(1.1))
    # The first look merges what has gone out, after the decodes; the second one finds the blocks.
    scheduler.now = 1.1
    assert (scheduler.schedule(), it.num_used) == (None, 2)
    assert scheduler.due_at == pytest.approx(1.2)
    scheduler.now = scheduler.due_at
    assert it.run().decodes.count == 1


def test_while_a_swapped_request_does_not_fit_nobody_is_admitted() -> None:
    it = story(spec(launch_block_threshold=0.0, swapin_block_threshold=2.0), num_blocks=6, block_size=4)
    it.add(6, 9)
    it.add(12, 9)
    it.run()  # 2 + 4 blocks
    it.run()  # A has 7 tokens
    assert it.run().num_preempted == 1  # A's eighth wants a third block
    end_moves(it)
    it.run()
    it.add(1, 1)
    batch = it.run()
    # 1 block is free, which the prompt needs; A needs 2 + 1 and 2.0 more.
    assert (admitted(batch), batch.num_waiting) == ([], 2)


def test_a_request_that_is_back_decodes_behind_the_others_and_computes_nothing_again() -> None:
    recorder, _ = play(
        make_demand([(0.0, 6, 5), (0.0, 7, 5)]),
        spec=spec(launch_block_threshold=0.0, swapin_block_threshold=0.0),
        model=ToyStepModel(),
        num_blocks=4,
        copy_s=0.001,
        checks_blocks=True,
    )
    assert list(recorder.num_preemptions) == [0, 1]
    assert list(recorder.recomputed_tokens) == [0, 0]


def test_by_recompute_the_victim_goes_to_the_front_of_the_queue() -> None:
    it = story(spec(preempt_mode="recompute", launch_block_threshold=0.0), num_blocks=4, block_size=4)
    it.add(6, 5)
    it.add(7, 5)
    it.run()
    it.add(20, 1)
    batch = it.run()
    # B's 7 + 1 tokens want 3 blocks, 2 are free; the third request is behind it.
    assert (batch.num_preempted, admitted(batch), it.num_used) == (1, [], 2)
    assert not it.scheduler.moves


def test_a_decode_without_a_block_ends_split_fuse_for_good() -> None:
    # 8 blocks of 4: the decode holds 2 (7 tokens), the prompt's first chunk of 16 and its spare slot 5.
    it = story(spec(split_fuse_token_num=16, launch_block_threshold=0.0), num_blocks=7, block_size=4)
    it.add(6, 9)
    it.run()
    it.add(20, 1)
    assert chunks(it.run()) == [(16, 0)]
    batch = it.run()
    # It wants a third block for its eighth token and gets it of the prompt, which must wait for 6 again.
    assert (batch.num_preempted, batch.decodes.count, chunks(batch)) == (1, 1, [])
    it.run(6)
    assert chunks(it.run()) == [(20, 0)]  # in one piece


def test_a_prompt_that_is_cached_whole_runs_as_a_decode() -> None:
    it = story(caches=True)
    it.add(32, 1, (1, 32))
    it.run()
    it.add(32, 1, (1, 32))
    batch = it.run()
    assert (chunks(batch), batch.decodes.count, batch.decodes.sum_context) == ([], 1, 32)
    assert finishing(batch) == [1]


def test_too_many_that_arrive_between_two_steps_are_refused() -> None:
    it = story(spec(max_waiting_queue_len=2))
    assert [it.add(5, 1) for _ in range(3)] == [None, None, "waiting_queue_full"]
    it.run()
    assert it.add(5, 1) is None


@pytest.mark.parametrize("leaps", [True, False])
def test_requests_that_are_not_done_in_time_are_dropped(leaps: bool) -> None:
    # Steps of 10 ms: A has 20 tokens in 200 ms and would need 300; B waits for its slot, until 250 ms.
    demand = make_demand([(0.0, 8, 30), (0.05, 8, 2)])
    settings = spec(max_batch_size=1, waiting_timeout_in_ms=200)
    recorder, _ = play(demand, spec=settings, model=ToyStepModel(), leaps=leaps, checks_blocks=True)
    assert recorder.reasons == {0: "waiting_timeout"}
    assert recorder.finished_at[1] == pytest.approx(0.2 + 0.02)


def test_a_block_is_one_copy_per_gpu() -> None:
    settings = spec(launch_block_threshold=0.0)
    kv = kv_for(settings, num_blocks=4, block_size=4, caches=False)
    copies = BlockCopies(num_bytes=1000, num_gpus=2, num_layers=32)
    scheduler = KsanaScheduler(settings, kv=kv, max_model_len=100, copies=copies)
    for index, prompt_tokens in enumerate((6, 7)):
        scheduler.add(Request(index, 0.0, prompt_tokens, 5))
    scheduler.schedule()
    scheduler.schedule()
    assert [(move.num_bytes, move.num_pieces) for move in scheduler.moves] == [(2000, 4)]


@given(
    loads(),
    st.sampled_from(["recompute", "swap"]),
    st.sampled_from([0, 5, 16]),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.integers(1, 6),
    st.integers(26, 40),
    st.booleans(),
)
def test_the_laws_hold_under_random_load(
    rows: Rows, mode: str, split_fuse: int, threshold: float, seqs: int, num_blocks: int, caches: bool
) -> None:
    settings = spec(
        preempt_mode=mode,
        split_fuse_token_num=split_fuse,
        launch_block_threshold=threshold,
        swapin_block_threshold=threshold,
        max_batch_size=seqs,
        max_step_tokens=128,
        block_host_memory_factor=0.7,
    )
    check_laws(rows, settings, num_blocks=num_blocks, block_size=4, caches=caches, copy_s=0.0017003)
