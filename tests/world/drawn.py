"""Random scenarios on toy models, for laws that hold in all of them."""

from __future__ import annotations

from math import e, pi
from typing import Any

from harness import make_demand
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import ContentRun
from simllm.sim.workload.demand import Demand

_ROWS = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 120), st.integers(1, 50)), min_size=1, max_size=20)
_SPECS = st.builds(
    VllmV1Spec,
    max_num_seqs=st.sampled_from([1, 3, 8]),
    max_num_batched_tokens=st.sampled_from([8, 24, 64]),
    max_model_len=st.sampled_from([None, 100]),
    enable_chunked_prefill=st.sampled_from([True, True, False]),
    long_prefill_token_threshold=st.sampled_from([0, 0, 5]),
    scheduler_reserve_full_isl=st.booleans(),
    watermark=st.sampled_from([0.0, 0.1]),
    async_scheduling=st.booleans(),
)
_MODELS = st.builds(
    ToyStepModel,
    # No sum of arrival times comes to these, so that rounding never decides who was first.
    base_s=st.sampled_from([pi / 300, e / 100]),
    token_s=st.sampled_from([0.0, 0.0007]),
    decode_s=st.sampled_from([0.0, 0.0003]),
    context_s=st.sampled_from([0.0, 1.3e-5]),
)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    """Open and closed loops; contents that share prefixes, or none."""
    demand = make_demand(sorted(draw(_ROWS)), draw(st.sampled_from([None, None, 3])))
    if draw(st.booleans()):
        demand.contents = [_content(draw, int(tokens)) for tokens in demand.prompt_tokens]
    return demand


def _content(draw: st.DrawFn, num_tokens: int) -> tuple[ContentRun, ...] | None:
    family, shared = draw(st.integers(0, 3)), min(draw(st.integers(0, 60)), num_tokens)
    own = ContentRun(100 + family * 3 + num_tokens % 3, num_tokens - shared)
    runs = (ContentRun(family, shared), own) if family else ()
    return tuple(run for run in runs if run.num_tokens) or None


SETTINGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "spec": _SPECS,
        "model": _MODELS,
        "num_blocks": st.sampled_from([12, 25, 40, 400]),
        "caches": st.booleans(),
        "leaps": st.booleans(),
        "num_replicas": st.sampled_from([1, 1, 2]),
        "frontend_s": st.sampled_from([(0.0, 0.0), (0.0013, 0.0004)]),
    }
)
"""Arguments of `harness.play`."""
