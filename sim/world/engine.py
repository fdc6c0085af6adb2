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
from ...hwmodels.execution import Execution
from ...hwmodels.step import StepModel, StepShape
from ..policy.batch import Batch
from ..policy.live_request import LiveRequest
from ..policy.scheduler.base import Scheduler
from ..request import Request
from .clock import STEP_END, Alarm, Clock
from .front_end import FrontEnd
from .journal import Journal
from .leap import Found, Leap
from .recorder import Recorder

OnEnd = Callable[[int, float], None]

Flight = tuple[int, float, Sequence[LiveRequest], Sequence[LiveRequest], int, float]
"""Steps in flight, by their last: its number, when its output is handled [s], whose prefill ends in it, who
finishes, how many get a token, and when it ends [s]."""


class Engine:
    """One replica of a pool.

    pipeline_depth: steps in flight, 1 without and 2 with asynchronous scheduling.
    execution: the hardware's state from step to step, None if steps owe nothing to those before them.
    launches_in_thread: the thread that decides steps and handles their output launches them, too, and can do
    nothing else meanwhile. schedule_s: what deciding a step with prompts takes when nothing is in flight that
    hides it [s].
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
        execution: Execution | None,
        launches_in_thread: bool,
        schedule_s: float,
        leaps: bool,
        front_end: FrontEnd,
        on_end: OnEnd,
    ) -> None:
        self._clock = clock
        self.replica = replica
        self.scheduler = scheduler
        self._step_model = step_model
        self._graphs = graphs
        self._depth = pipeline_depth
        self._execution = execution
        # What decodes alone owe to the steps before them, if anything.
        self._powered = execution if execution is not None and execution.has_clock else None
        self._launches_in_thread = launches_in_thread
        self._schedule_s = schedule_s
        self._gpu_free_at = 0.0  # when the last step in flight ends
        self._thread_free_at = 0.0  # when its launches are done
        # SIMPLIFIED: no leaps with more than two steps in flight; effect: slower, same rows.
        self._leaps = leaps and pipeline_depth <= 2
        self._on_end = on_end
        self._records_steps = recorder.steps is not None
        self._front_end = front_end
        self.journal = Journal(recorder, replica, step_model.terms, graphs)
        self._totals = self.journal.totals
        self._flights: deque[Flight] = deque()
        self._leap = Leap()
        self._is_leaping = False
        self._is_awake = False  # the alarm is set
        self._alarm = Alarm(clock, self._ring, STEP_END)

    def submit(self, request: Request) -> None:
        """Takes in a request now, or rejects one that can never be served."""
        refusal = self.scheduler.add(request)
        if refusal is not None:
            self.journal.rejected(request, refusal)
            self._on_end(self.replica, self._clock.now)
        elif self._is_leaping:
            self._cut(self._leap)
        elif not self._is_awake:
            # An idle engine starts once everything that happens at this instant has happened.
            self._is_awake = True
            now, front_end = self._clock.now, self._front_end
            self._alarm.set(now + front_end.hold_s(now) if front_end.takes_time else now)

    def _cut(self, leap: Leap) -> None:
        """Ends the leap with the first step that ends now or later: what is decided then sees arrivals."""
        if leap.has_arrival:
            return
        leap.has_arrival = True
        now = self._clock.now
        for flight in self._flights:
            if flight[1] >= now:
                step, end_at, *_ = flight
                break
        else:
            step, end_at = leap.first_end_from(now)
        if step < leap.wake_step:
            leap.wake_step, leap.wake_at = step, end_at
            self._alarm.set(end_at)

    def _ring(self, _: Event) -> None:
        """A step has ended, or an idle engine begins: process its output and decide what comes next."""
        alarm, flights = self._alarm, self._flights
        if alarm.ticket != self._clock.ticket:
            return  # overtaken by an arrival that cut the leap
        if self._is_leaping:
            leap = self._leap
            sees_arrival = leap.has_arrival
            is_leaping = self._land(leap) or self._decide(sees_arrival)
        else:
            sees_arrival = not flights
            if flights and flights[0][1] <= self._clock.now:
                self._complete(flights[0][0])
            is_leaping = self._decide(sees_arrival)
        self._is_leaping = is_leaping
        # The only line where time passes.
        if is_leaping:
            alarm.set(self._leap.wake_at)
        elif flights:
            alarm.set(self._wakes_at())
        else:
            self._is_awake = False

    def _wakes_at(self) -> float:
        """Returns when the next output comes, or one more step can be decided before it [s]."""
        end_at, thread_free_at = self._flights[0][1], self._thread_free_at
        can_decide = len(self._flights) < self._depth and self._clock.now < thread_free_at < end_at
        return thread_free_at if can_decide else end_at

    def _decide(self, sees_arrival: bool) -> bool:
        """Fills the pipeline, by a leap if decodes are all that comes next, else step by step.

        sees_arrival: someone new waits for the first decision. Returns whether a leap has begun.
        """
        flights, depth, scheduler = self._flights, self._depth, self.scheduler
        may_leap, powered = self._leaps and not sees_arrival, self._powered
        while True:
            num_in_flight = len(flights)
            if num_in_flight < depth and self._thread_free_at > self._clock.now:
                return False
            # The output of the first of `depth` flights may come before the leap's first decision.
            is_seen = num_in_flight == depth and flights[0][3]
            may_leap = may_leap and (powered is None or powered.is_at_full_clock)
            if may_leap and num_in_flight >= depth - 1 and not is_seen and self._take_off():
                return True
            if num_in_flight >= depth:
                return False
            batch = scheduler.schedule()
            if batch is None:
                if flights or not scheduler.num_waiting:
                    return False
                # It preempted all there was, and nothing in flight will wake the engine: decide again.
                batch = scheduler.schedule()
                if batch is None:
                    return False
            self._launch(batch)
            may_leap = self._leaps

    def _launch(self, batch: Batch) -> None:
        """Prices a step and puts it behind those in flight."""
        now, flights, graphs = self._clock.now, self._flights, self._graphs
        started_at = self._gpu_free_at if self._gpu_free_at > now else now
        num_tokens, decodes = batch.num_tokens, batch.decodes
        num_padded = graphs.pad(num_tokens)
        groups = (decodes,) if decodes.count else ()
        shape = StepShape(batch.chunks, groups, num_padded, batch.num_sampled, num_tokens <= graphs.largest)
        cost = self._step_model.predict(shape)
        if batch.chunks:
            if not flights:
                started_at += self._schedule_s
            if self._launches_in_thread and cost.cpu_s:
                self._occupy_thread(now + cost.cpu_s)
            if self._execution is not None:
                cost = self._execution.run(cost, now, started_at)
        elif self._powered is not None:
            cost = self._powered.run_decodes(cost, started_at)
        self._gpu_free_at = end_at = started_at + cost.duration_s
        flights.append((batch.step, end_at, batch.completing, batch.finishing, batch.num_sampled, end_at))
        self.journal.stepped(batch, cost, num_padded, now, started_at, end_at)

    def _occupy_thread(self, launched_at: float) -> None:
        """Keeps the thread launching until then [s]: it handles the output of the step before after that."""
        self._thread_free_at = launched_at
        if self._flights:
            step, handled_at, completing, finishing, num_tokens, end_at = self._flights[-1]
            if handled_at < launched_at:
                self._flights[-1] = (step, launched_at, completing, finishing, num_tokens, end_at)

    def _take_off(self) -> bool:
        """Begins a leap behind the steps in flight if decodes are all that comes next."""
        if not self._flights:
            return self._plan_leap(self._clock.now)
        step, end_at, _, finishing, *_ = self._flights[-1]
        if not self._plan_leap(self._gpu_free_at):
            return False
        leap = self._leap
        if finishing and step < leap.wake_step:
            leap.wake_step, leap.wake_at = step, end_at
        return True

    def _plan_leap(self, started_at: float) -> bool:
        """Plans to leap through the decodes ahead; False if the next step must be decided in full."""
        scheduler, leap = self.scheduler, self._leap
        ahead = scheduler.outlook()
        if ahead is None:
            return False
        num_steps, decodes, ends_with_last_token = ahead
        line = self._step_model.decode_line(decodes, num_steps)
        num_planned = line.num_steps
        if num_planned < num_steps or not ends_with_last_token:
            num_planned += 1 - self._depth  # the step after these is to be decided in full
        leap.plan(scheduler.step, started_at, decodes, line, num_planned)
        if self._records_steps:
            leap.found = self._found(scheduler.num_waiting)
        return True

    def _found(self, num_waiting: int) -> Found:
        return self.scheduler.num_running, num_waiting, self.scheduler.kv.num_free

    def _land(self, leap: Leap) -> bool:
        """Commits the leap's steps up to the one to be decided now, and completes those that ended.

        Returns whether another leap has begun with a step that a plain run has decided already.
        """
        wake_step = leap.wake_step
        num_decided = num_steps = wake_step + self._depth - 1 - leap.after_step
        if num_steps > leap.line.num_steps:
            num_steps = leap.line.num_steps
        if num_steps:
            self._commit(leap, num_steps)
        leaps_on = num_steps < num_decided and self._leap_on(leap.has_arrival, leap.found)
        self._complete(wake_step)
        return leaps_on

    def _commit(self, leap: Leap, num_steps: int) -> None:
        scheduler, step = self.scheduler, leap.after_step + num_steps
        end_at = leap.wake_at if step == leap.wake_step else leap.end_of(num_steps)
        self._gpu_free_at = end_at
        if self._powered is not None:
            self._powered.decode(leap.started_at, end_at)
        self._totals.add_leap(num_steps, leap.decodes, leap.line)
        if leap.found is not None:
            self.journal.leapt(leap, num_steps, scheduler)
        finishing = scheduler.advance(num_steps)
        self._flights.append((step, end_at, (), finishing, leap.decodes.count, end_at))

    def _leap_on(self, has_arrival: bool, found: Found | None) -> bool:
        """Goes on with the step that a plain run decided before the output that is now to be processed.

        By a leap, if nobody waits who might get what is set free: whoever finishes now changes none of its
        steps, only what the first one found taken. Else by that one step: requests that arrived since the
        leap before, for which it `found` things so, are not to see it. They don't: it holds decodes only,
        or else it must preempt and admits nobody. Returns whether a leap has begun.
        """
        scheduler, leap, started_at = self.scheduler, self._leap, self._gpu_free_at
        if not has_arrival and self._plan_leap(started_at):
            can_leap = leap.wake_step > leap.after_step and not scheduler.num_waiting
            if can_leap:
                return True
        if scheduler.can_advance():
            decodes = scheduler.decodes()
            leap.plan(scheduler.step, started_at, decodes, self._step_model.decode_line(decodes, 1), 1)
            leap.found = None if found is None else self._found(found[1])
            self._commit(leap, 1)
        elif scheduler.decodes().count:
            num_new = 0 if found is None else scheduler.num_waiting - found[1]
            batch = scheduler.schedule()
            if batch is not None:
                batch.num_waiting -= num_new
                self._launch(batch)
        return False

    def _complete(self, last_step: int) -> None:
        """Processes the outputs of the steps up to `last_step`: first tokens, finished requests."""
        flights = self._flights
        while flights and flights[0][0] <= last_step:
            _, handled_at, completing, finishing, num_sampled, ended_at = flights.popleft()
            if not (completing or finishing):
                continue
            heard_at = handled_at
            if self._front_end.takes_time:
                heard_at += self._front_end.times.way_out_s(num_sampled, len(completing), len(finishing))
            if completing:
                self.journal.sampled(completing, ended_at, heard_at)
            if finishing:
                self.scheduler.finish(finishing)
                for live in finishing:
                    self.journal.finished(live, ended_at, heard_at)
                    self._on_end(self.replica, heard_at)
