"""One replica in time: the scheduler decides steps, the step model prices them, the clock moves.

The engine owns the steps in flight. With asynchronous scheduling there are two: one runs while the next
is decided already, so a new request waits for up to one more step, and a finished one keeps its slot for
one. A step's output is processed when it ends, in order; that is when slots and blocks come free and one
more step is decided.

Where nothing can intervene, decode steps pass many at a time, as a *leap* (see `leap.py`), with the same
result as one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from simpy.events import Event

from ...hwmodels.cudagraph import CudaGraphSizes
from ...hwmodels.step import DecodeLine, StepModel, StepShape
from ..policy.batch import Batch
from ..policy.live_request import LiveRequest
from ..policy.scheduler.base import Scheduler
from ..request import Request
from .clock import STEP_END, Alarm, Clock
from .journal import Journal
from .leap import Leap
from .recorder import Recorder

OnEnd = Callable[[int, float], None]


class Flight:
    """A step in flight: decided, and ending at `end_at` [s]."""

    __slots__ = ("completing", "end_at", "finishing", "step")

    def __init__(
        self,
        step: int,
        end_at: float,
        completing: Sequence[LiveRequest],
        finishing: Sequence[LiveRequest],
    ) -> None:
        self.step = step
        self.end_at = end_at
        self.completing = completing
        self.finishing = finishing


class Engine:
    """One replica of a pool.

    pipeline_depth: steps in flight, 1 without and 2 with asynchronous scheduling.
    on_end(replica, ended_at) is told of every request that ends here, when its answer is complete.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        replica: int,
        scheduler: Scheduler,
        step_model: StepModel,
        graphs: CudaGraphSizes,
        recorder: Recorder,
        pipeline_depth: int,
        leaps: bool,
        frontend_out_s: float,
        on_end: OnEnd,
    ) -> None:
        self._clock = clock
        self.replica = replica
        self.scheduler = scheduler
        self._step_model = step_model
        self._graphs = graphs
        self._depth = pipeline_depth
        # SIMPLIFIED: no leaps with more than two steps in flight; effect: slower, same rows.
        self._leaps = leaps and pipeline_depth <= 2
        self._on_end = on_end
        self.journal = Journal(recorder, replica, step_model.terms, frontend_out_s)
        self._flights: deque[Flight] = deque()
        self._leap: Leap | None = None
        self._alarm: Event | None = None

    def submit(self, request: Request) -> None:
        """Takes in a request now, or rejects one that can never be served."""
        refusal = self.scheduler.add(request)
        if refusal is not None:
            self.journal.rejected(request, refusal)
            self._on_end(self.replica, self._clock.now)
            return
        leap = self._leap
        if leap is not None:
            if leap.cut(*self._first_decision_from_now(leap)):
                self._alarm = Alarm(self._clock, leap.wake_at, self._ring, STEP_END)
        elif self._alarm is None:
            # An idle engine starts once everything that happens at this instant has happened.
            self._alarm = Alarm(self._clock, self._clock.now, self._ring, STEP_END)

    def _first_decision_from_now(self, leap: Leap) -> tuple[int, float]:
        """Returns the first step that ends now or later and after which another is decided, and its end."""
        now = self._clock.now
        for flight in self._flights:
            if flight.end_at >= now:
                return flight.step, flight.end_at
        num_steps = max(leap.steps_ended_by(now), 1)
        return leap.after_step + num_steps, leap.end_of(num_steps)

    def _ring(self, alarm: Event) -> None:
        """A step has ended, or an idle engine begins: process its output and decide what comes next."""
        if alarm is not self._alarm:
            return  # overtaken by an arrival that cut the leap
        self._alarm = None
        flights = self._flights
        if self._leap is not None:
            self._land(self._leap)
        elif flights:
            self._complete(flights.popleft())
        if self._leap is None:
            self._decide()
        # The only line where time passes.
        if self._leap is not None:
            self._alarm = Alarm(self._clock, self._leap.wake_at, self._ring, STEP_END)
        elif flights:
            self._alarm = Alarm(self._clock, flights[0].end_at, self._ring, STEP_END)

    def _decide(self) -> None:
        """Fills the pipeline: with a leap if decodes are all that comes next, else step by step."""
        flights, depth, scheduler = self._flights, self._depth, self.scheduler
        while not (self._leaps and self._take_off()) and len(flights) < depth:
            batch = scheduler.schedule()
            if batch is None and not flights and scheduler.num_waiting:
                # It preempted all there was, and nothing in flight will wake the engine: decide again.
                batch = scheduler.schedule()
            if batch is None:
                break
            self._launch(batch)

    def _launch(self, batch: Batch) -> None:
        """Prices a step and puts it behind those in flight."""
        now, flights, graphs = self._clock.now, self._flights, self._graphs
        started_at = max(now, flights[-1].end_at) if flights else now
        num_tokens, decodes = batch.num_tokens, batch.decodes
        num_padded = graphs.pad(num_tokens)
        shape = StepShape(
            batch.chunks,
            (decodes,) if decodes.count else (),
            num_padded,
            batch.num_sampled,
            graphs.captures(num_tokens),
        )
        line = DecodeLine.of_step(self._step_model.predict(shape))
        flights.append(Flight(batch.step, started_at + line.base_s, batch.completing, batch.finishing))
        self.journal.stepped(batch, line, num_padded, now, started_at)

    def _take_off(self) -> bool:
        """Begins a leap if the next steps are decodes only; returns whether it does."""
        flights, depth = self._flights, self._depth
        num_in_flight = len(flights)
        if num_in_flight < depth - 1 or (num_in_flight == depth and flights[0].finishing):
            return False  # an output comes before the leap's first decision
        leap = self._next_leap(flights[-1].end_at if flights else self._clock.now)
        if leap is None:
            return False
        for flight in flights:
            if flight.finishing:
                leap.cut(flight.step, flight.end_at)
                break
        self._leap = leap
        return True

    def _next_leap(self, started_at: float) -> Leap | None:
        """Returns the decode-only steps that come next, None if the next step must be decided in full."""
        scheduler = self.scheduler
        outlook = scheduler.outlook()
        if outlook is None:
            return None
        num_steps, decodes, ends_with_last_token, num_running, num_waiting = outlook
        line = self._step_model.decode_line(decodes, num_steps)
        after_step, straight_steps = scheduler.step, line.num_steps
        wake_step = after_step + straight_steps
        if not ends_with_last_token or straight_steps < num_steps:
            wake_step += 1 - self._depth
        return Leap(after_step, started_at, decodes, line, wake_step, num_running, num_waiting)

    def _land(self, leap: Leap) -> None:
        """Commits the leap's steps up to the one to be decided now, and completes those that ended."""
        self._leap = None
        flights, scheduler = self._flights, self.scheduler
        last_decided = leap.wake_step + self._depth - 1
        num_steps = min(last_decided - leap.after_step, leap.line.num_steps)
        if num_steps:
            self._commit(leap, num_steps)
        if scheduler.step < last_decided and not self._leap_again():
            self._decide_late(leap)
        wake_step, num_free = leap.wake_step, scheduler.kv.num_free
        while flights and flights[0].step <= wake_step:
            self._complete(flights.popleft())
        if self._leap is not None:
            self._leap.keep_for_first_step(scheduler.num_running, scheduler.kv.num_free - num_free)

    def _commit(self, leap: Leap, num_steps: int) -> None:
        scheduler = self.scheduler
        end_at = leap.wake_at if num_steps == leap.wake_step - leap.after_step else leap.end_of(num_steps)
        self.journal.leapt(leap, num_steps, end_at, self._graphs, scheduler)
        finishing = scheduler.advance(num_steps)
        self._flights.append(Flight(scheduler.step, end_at, (), finishing))

    def _leap_again(self) -> bool:
        """Begins a leap with the step that a plain run has decided already, if nobody waits.

        Whoever finishes now then changes none of its steps, only what the first one found taken.
        """
        leap = self._next_leap(self._flights[-1].end_at)
        if leap is None or leap.num_waiting or leap.wake_step == leap.after_step:
            return False
        self._leap = leap
        return True

    def _decide_late(self, leap: Leap) -> None:
        """Decides the step that a plain run decided before the output that is now to be processed.

        Requests that arrived since are not to see it. They don't: it holds decodes only, or else it must
        preempt and admits nobody.
        """
        scheduler = self.scheduler
        if scheduler.can_advance():
            decodes = scheduler.decodes()
            started_at = self._flights[-1].end_at
            line = self._step_model.decode_line(decodes, 1)
            step, running, waiting = scheduler.step, leap.num_running, leap.num_waiting
            self._commit(Leap(step, started_at, decodes, line, step, running, waiting), 1)
        elif scheduler.decodes().count:
            batch = scheduler.schedule()
            if batch is not None:
                self._launch(batch)

    def _complete(self, flight: Flight) -> None:
        """Processes the output of a step that ended: first tokens, finished requests."""
        if flight.completing:
            self.journal.sampled(flight.completing, flight.end_at)
        if flight.finishing:
            self.scheduler.finish(flight.finishing)
            for live in flight.finishing:
                self._on_end(self.replica, self.journal.finished(live, flight.end_at))
