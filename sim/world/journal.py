"""What one engine writes down: its steps, the gaps between tokens, and how its requests fared."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from ...hwmodels.cudagraph import CudaGraphSizes
from ...hwmodels.step import DecodeLine
from ..policy.batch import Batch
from ..policy.live_request import LiveRequest
from ..policy.scheduler.base import Scheduler
from ..request import Request
from .leap import Leap
from .recorder import Recorder, Status, StepRun
from .totals import RunningTotals


class Journal:
    """Writes one replica's part of the recorder.

    frontend_out_s: from the end of a step until the client sees its token [s].
    """

    def __init__(
        self, recorder: Recorder, replica: int, terms: tuple[str, ...], frontend_out_s: float
    ) -> None:
        self._recorder = recorder
        self._replica = replica
        self._frontend_out_s = frontend_out_s
        self._last_end = 0.0  # of the step decided last
        self.totals = RunningTotals(terms, recorder.gaps)

    def rejected(self, request: Request, reason: str) -> None:
        """Notes a request that can never be served."""
        self._recorder.replica[request.index] = self._replica
        self._recorder.status[request.index] = Status.REJECTED
        self._recorder.reasons[request.index] = reason

    def stepped(
        self, batch: Batch, line: DecodeLine, num_padded: int, decided_at: float, started_at: float
    ) -> None:
        """Notes a step of any composition, decided at `decided_at` and started at `started_at` [s]."""
        recorder, gaps = self._recorder, self._recorder.gaps
        end_at = started_at + line.base_s
        for live in batch.admitted:
            if not live.num_preemptions:
                recorder.scheduled_at[live.index] = decided_at
                recorder.replica[live.index] = self._replica
        for live in batch.paused:
            live.last_token_at = self._last_end
        for live in batch.rejoined:
            gaps.add(end_at - live.last_token_at)
        for live in batch.completing:
            if live.num_sampled > 1:  # it has computed everything again after a preemption
                gaps.add(end_at - live.last_token_at)
        # Who continues got a token when the step before ended, just as this one began.
        self._last_end = end_at
        self.totals.add(batch, line)
        if recorder.steps is not None:
            recorder.steps.append(self._row(batch, line, num_padded, started_at))

    def leapt(
        self, leap: Leap, num_steps: int, end_at: float, graphs: CudaGraphSizes, scheduler: Scheduler
    ) -> None:
        """Notes the first `num_steps` steps of a leap, before the scheduler commits them."""
        self._last_end = end_at
        self.totals.add_leap(leap, num_steps)
        if self._recorder.steps is not None:
            num_padded = graphs.pad(leap.decodes.count)
            self._recorder.steps += self._leap_rows(leap, num_steps, num_padded, scheduler)

    def sampled(self, completing: Sequence[LiveRequest], end_at: float) -> None:
        """Notes the first token of each of `completing`, whose prefill ended at `end_at` [s]."""
        first_token_at = self._recorder.first_token_at
        for live in completing:
            if isnan(first_token_at[live.index]):
                first_token_at[live.index] = end_at + self._frontend_out_s

    def finished(self, live: LiveRequest, end_at: float) -> float:
        """Notes a request whose last step ended at `end_at`; returns when its client knows [s]."""
        recorder, index = self._recorder, live.index
        finished_at = recorder.finished_at[index] = end_at + self._frontend_out_s
        recorder.output_tokens[index] = live.num_output_tokens
        recorder.status[index] = Status.FINISHED
        if live.num_cached_tokens:
            recorder.cached_tokens[index] = live.num_cached_tokens
        if live.num_preemptions:
            recorder.num_preemptions[index] = live.num_preemptions
            recorder.recomputed_tokens[index] = live.num_recomputed_tokens
        return finished_at

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
        self, leap: Leap, num_steps: int, num_padded: int, scheduler: Scheduler
    ) -> tuple[StepRun, ...]:
        decodes, growth, kv = leap.decodes, scheduler.block_growth(), scheduler.kv
        whole = StepRun(
            replica=self._replica,
            first_step=leap.after_step + 1,
            started_at=leap.started_at,
            num_steps=num_steps,
            num_prefill_tokens=0,
            num_prefill_chunks=0,
            num_decodes=decodes.count,
            sum_decode_context=decodes.sum_context,
            num_padded_tokens=num_padded,
            num_sampled=decodes.count,
            num_running=leap.num_running,
            num_waiting=leap.num_waiting,
            num_preempted=0,
            kv_blocks_used=kv.num_blocks - kv.num_free + growth[0],
            line=leap.line,
            block_growth=(*growth[1:], growth[0]),
        )
        if not leap.kept_slots:
            return (whole,)
        first = whole._replace(
            num_steps=1,
            num_running=whole.num_running + leap.kept_slots,
            kv_blocks_used=whole.kv_blocks_used + leap.kept_blocks,
            block_growth=(),
        )
        return (first,) if num_steps == 1 else (first, whole.after_first_step())
