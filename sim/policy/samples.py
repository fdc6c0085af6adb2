"""Several samples (`n` > 1), or beams, of one request: as many requests to the scheduler, one to the user.

Each sample is scheduled by itself, as vLLM V1 does; a prefix cache lets all but the first find the prompt's
full blocks, without one they share nothing. The request ends with its last sample.
SIMPLIFIED: all samples have the length of the one answer that the workload gives; effect: none on means, the
last sample ends sooner than the longest of several drawn ones.
Source: vLLM vllm/v1/engine/parallel_sampling.py (behaviour, read 2026-11).
"""

from __future__ import annotations

from ..request import ContentRun, Request
from .live_request import LiveRequest, SampleGroup

# Contents and requests are named by numbers from 0 up; samples get names that no workload reaches.
_OWN_PROMPTS, _SAMPLES = 1 << 60, 1 << 50
_MOST_SAMPLES = 1 << 12


def live_requests(request: Request, num_output_tokens: int) -> list[LiveRequest]:
    """Returns the samples of a request, in the order in which they queue; one if it asks for one.

    All have the request's `index`, under which their tokens are recorded; their own requests differ, so that
    their answers do.
    """
    num_samples = request.beam_width or request.num_samples
    if num_samples == 1:
        return [LiveRequest(request, num_output_tokens)]
    own = ContentRun(_OWN_PROMPTS + request.index, request.prompt_tokens)
    shared = request._replace(content=request.content or (own,))
    group = SampleGroup(num_samples)
    samples = []
    for sample in range(num_samples):
        index = request.index if not sample else _SAMPLES + request.index * _MOST_SAMPLES + sample
        live = LiveRequest(shared._replace(index=index), num_output_tokens)
        live.index, live.sample, live.group = request.index, sample, group
        samples.append(live)
    return samples
