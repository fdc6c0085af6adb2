"""What one engine writes down: its steps, the gaps between tokens, and how its requests fared."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from ...hwmodels.cudagraph import CudaGraphSizes
from ...hwmodels.step import DecodeLine, StepCost
from ..policy.batch import Batch
from ..policy.live_request import LiveRequest
from ..policy.scheduler.base import Scheduler
from ..request import Request
from .leap import Found, Leap
from .recorder import Recorder, Status, StepRun
from .totals import RunningTotals


class Journal:
    """Writes one replica's part of the recorder.

    graphs: what steps are padded to. frontend_out_s: from the end of a step until the client sees its
    token [s].
    """

    def __init__(
        self,
        recorder: Recorder,
        replica: int,
        terms: tuple[str, ...],
        graphs: CudaGraphSizes,
    ) -> None:
        self._recorder = recorder
        self._replica = replica
        self._graphs = graphs
        self.totals = RunningTotals(terms, recorder.gaps)

    def rejected(self, request: Request, reason: str) -> None:
        """Notes a request that can never be served."""
        self._recorder.replica[request.index] = self._replica
        self._recorder.status[request.index] = Status.REJECTED
        self._recorder.reasons[request.index] = reason

    def stepped(
        self,
        batch: Batch,
        cost: StepCost,
        num_padded: int,
        decided_at: float,
        span: tuple[float, float],
        before_ended_at: float,
        decodes_ended_at: float,
    ) -> None:
        """Notes a step of any composition, with the instants of its decision and of its start and end [s].

        before_ended_at: when the step before ended. decodes_ended_at: when the last step with the decodes
        that continue ended, which gave them their last token [s].
        """
        started_at, end_at = span
        recorder = self._recorder
        for live in batch.admitted:
            if not live.num_preemptions and (live.group is None or isnan(recorder.scheduled_at[live.index])):
                recorder.scheduled_at[live.index] = decided_at
                recorder.replica[live.index] = self._replica
        for live in batch.paused:
            live.last_token_at = decodes_ended_at
        for live in batch.late:
            live.last_token_at = before_ended_at
        for live in batch.rejoined:
            recorder.gaps.add(end_at - live.last_token_at)
        for live in batch.completing:
            if live.num_sampled > 1:  # it has computed everything again after a preemption
                recorder.gaps.add(end_at - live.last_token_at)
        # Who continues got a token when this step began, unless it had to wait.
        self.totals.add(batch, cost, started_at - decodes_ended_at)
        if recorder.steps is not None:
            recorder.steps.append(self._row(batch, DecodeLine.of_step(cost), num_padded, started_at))

    def leapt(self, leap: Leap, num_steps: int, scheduler: Scheduler) -> None:
        """Notes the rows of a leap's first `num_steps` steps, before the scheduler commits them."""
        if leap.found is not None and self._recorder.steps is not None:
            self._recorder.steps += self._leap_rows(leap, leap.found, num_steps, scheduler)

    def sampled(self, completing: Sequence[LiveRequest], ended_at: float, heard_at: float) -> None:
        """Notes the first token of each of `completing`: its step's end, and when its client has it [s]."""
        recorder = self._recorder
        first_token_at = recorder.first_token_at
        for live in completing:
            if isnan(first_token_at[live.index]):
                first_token_at[live.index] = heard_at
                if recorder.steps is not None:
                    recorder.first_step_ended_at[live.index] = ended_at

    def finished(self, live: LiveRequest, ended_at: float, heard_at: float) -> None:
        """Notes the end of a request: that of its last step, and when its client has its last token [s]."""
        recorder, index = self._recorder, live.index
        recorder.finished_at[index] = heard_at
        if recorder.steps is not None:
            recorder.last_step_ended_at[index] = ended_at
        recorder.output_tokens[index] = live.num_output_tokens
        recorder.status[index] = Status.FINISHED
        if live.num_cached_tokens:
            recorder.cached_tokens[index] = live.num_cached_tokens
        if live.num_preemptions:
            recorder.num_preemptions[index] = live.num_preemptions
            recorder.recomputed_tokens[index] = live.num_recomputed_tokens

    def _row(self, batch: Batch, line: DecodeLine, num_padded: int, started_at: float) -> StepRun:
        return StepRun(
            replica=self._replica,
            first_step=batch.step,
            started_at=started_at,
            num_steps=1,
            num_prefill_tokens=sum(chunk.query_len * chunk.count for chunk in batch.chunks),
            num_prefill_chunks=len(batch.chunks),
            num_decodes=batch.decodes.count,
            sum_decode_context=batch.decodes.sum_context,
            num_padded_tokens=num_padded,
            num_sampled=batch.num_sampled,
            num_running=batch.num_running,
            num_waiting=batch.num_waiting,
            num_preempted=batch.num_preempted,
            kv_blocks_used=batch.kv_blocks_used,
            line=line,
        )

    def _leap_rows(
        self, leap: Leap, found: Found, num_steps: int, scheduler: Scheduler
    ) -> tuple[StepRun, ...]:
        growth, kv, num_decodes = scheduler.block_growth(), scheduler.kv, leap.decodes.count
        num_running, num_waiting, num_free = found
        computed = scheduler.computed_decodes(leap.decodes) if scheduler.pads_decodes else leap.decodes
        whole = StepRun(
            replica=self._replica,
            first_step=leap.after_step + 1,
            started_at=leap.started_at,
            num_steps=num_steps,
            num_prefill_tokens=0,
            num_prefill_chunks=0,
            num_decodes=num_decodes,
            sum_decode_context=leap.decodes.sum_context,
            num_padded_tokens=self._graphs.pad(computed.count),
            num_sampled=num_decodes,
            num_running=scheduler.num_running,
            num_waiting=num_waiting,
            num_preempted=0,
            kv_blocks_used=kv.num_blocks - kv.num_free + growth[0],
            line=leap.line,
            block_growth=(*growth[1:], growth[0]),
        )
        if num_running == scheduler.num_running:
            return (whole,)
        # The first step was decided before an output set slots and blocks free.
        first = whole._replace(
            num_steps=1,
            num_running=num_running,
            kv_blocks_used=kv.num_blocks - num_free + growth[0],
            block_growth=(),
        )
        return (first,) if num_steps == 1 else (first, whole.after_first_step())
