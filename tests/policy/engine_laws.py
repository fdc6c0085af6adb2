"""What every engine's scheduler owes, whatever its policy: each engine's tests call `check_laws`."""

from __future__ import annotations

import numpy as np
from harness import make_demand, play, request_rows, step_rows
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.scheduler.engine_spec import EngineSpec
from simllm.sim.world.recorder import Recorder, Status

# No multiples of each other or of a millisecond: an arrival in the very instant in which a step ends falls
# before or after it by the last bit, which sums in another order need not share.
MODEL = ToyStepModel(base_s=0.0100037, token_s=0.00100071, decode_s=0.000500113, context_s=1.00013e-5)

Rows = list[tuple[float, int, int]]


@st.composite
def loads(draw: st.DrawFn, *, max_prompt_tokens: int = 60, max_output_tokens: int = 40) -> Rows:
    """A handful of requests as (arrived_at [s], prompt_tokens, output_tokens), in bursts or apart."""
    span_ms = draw(st.sampled_from([10, 500, 3000]))
    row = st.tuples(
        st.integers(0, span_ms), st.integers(1, max_prompt_tokens), st.integers(1, max_output_tokens)
    )
    rows = draw(st.lists(row, min_size=1, max_size=14))
    return sorted((at / 1000, prompt, output) for at, prompt, output in rows)


def check_laws(
    rows: Rows,
    spec: EngineSpec,
    *,
    num_blocks: int,
    block_size: int,
    caches: bool = False,
    copy_s: float = 0.0,
) -> Recorder:
    """Plays the rows with leaps and without; returns what was recorded.

    Blocks add up after every event; every request ends; both runs give the same rows; the pooled gaps
    between tokens are those of the requests.
    """
    demand, recorders = make_demand(rows), []
    for leaps in (True, False):
        recorder, _ = play(
            demand,
            spec=spec,
            model=MODEL,
            num_blocks=num_blocks,
            block_size=block_size,
            caches=caches,
            copy_s=copy_s,
            leaps=leaps,
            checks_blocks=True,
        )
        _check_requests(recorder)
        recorders.append(recorder)
    for rows_of in (request_rows, step_rows):
        leaping, plain = map(rows_of, recorders)
        np.testing.assert_allclose(leaping, plain, rtol=1e-9, atol=1e-9)
    return recorders[0]


def _check_requests(recorder: Recorder) -> None:
    status = np.asarray(recorder.status)
    assert set(status.tolist()) <= {Status.FINISHED, Status.REJECTED}
    done = status == Status.FINISHED
    decoding_s = (np.asarray(recorder.finished_at) - np.asarray(recorder.first_token_at))[done]
    assert (decoding_s >= 0).all()
    num_gaps = int((np.asarray(recorder.output_tokens)[done] - 1).sum())
    if (~done & ~np.isnan(np.asarray(recorder.first_token_at))).any():
        assert recorder.gaps.count >= num_gaps  # some were given up with an answer in part
        return
    assert recorder.gaps.count == num_gaps
    if num_gaps:
        np.testing.assert_allclose(recorder.gaps.mean_s() * num_gaps, decoding_s.sum(), rtol=1e-9)
