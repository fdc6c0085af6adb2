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
from typing import Protocol

from simpy.events import Event

from ...hwmodels.cudagraph import CudaGraphSizes
from ...hwmodels.execution import Execution
from ...hwmodels.step import StepModel, StepShape
from ..policy.batch import Batch
from ..policy.live_request import LiveRequest
from ..policy.moves import Move, When
from ..policy.scheduler.base import Scheduler
from ..request import Request
from .clock import STEP_END, Alarm, Clock
from .front_end import FrontEnd
from .journal import Journal
from .leap import Found, Leap
from .pipeline import Passage, Pipeline
from .recorder import Recorder

OnEnd = Callable[[int, int, float], None]

Flight = tuple[int, float, Sequence[LiveRequest], Sequence[LiveRequest], int, float]
"""Steps in flight, by their last: its number, when its output is handled [s], whose prefill ends in it, who
finishes, how many get a token, and when it ends [s]."""


class Mover(Protocol):
    """Times moves of KV between the tiers that one replica reaches; it has `num_layers` layers of it."""

    num_layers: int

    def start(self, move: Move, on_end: Callable[[Move], None]) -> None:
        """Starts a move now; `on_end(move)` is called when it has ended."""
        ...


class MicroBatches(Protocol):
    """A scheduler none of whose steps holds a request that has a token in flight."""

    def returned(self, step: int) -> None:
        """Hears that the output of a step has come: its requests may go on."""
        ...


class Engine:
    """One replica of a pool.

    pipeline_depth: steps in flight, 1 without and 2 with asynchronous scheduling.
    execution: the hardware's state from step to step, None if steps owe nothing to those before them.
    launches_in_thread: the thread that decides steps and handles their output launches them, too, and can do
    nothing else meanwhile. schedule_s: what deciding a step with prompts takes when nothing is in flight that
    hides it [s]. mover: times the moves of KV that the scheduler decides, None if it decides none.
    pipeline: the stages of its layers, None if it has one. micro_batches: the scheduler, if it waits for
    tokens in flight.
    on_end(replica, index, ended_at) is told of every request that ends here, when its answer is complete.
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
        mover: Mover | None,
        leaps: bool,
        front_end: FrontEnd,
        on_end: OnEnd,
        pipeline: Pipeline | None = None,
        micro_batches: MicroBatches | None = None,
    ) -> None:
        self._clock = clock
        self.replica = replica
        self.scheduler = scheduler
        self.step_model = step_model
        self._graphs = graphs
        self._depth = pipeline_depth
        self._execution = execution
        # What decodes alone owe to the steps before them, if anything.
        self._powered = execution if execution is not None and execution.has_clock else None
        self.pipeline = pipeline
        self._micro_batches = micro_batches
        self._launches_in_thread = launches_in_thread
        self._schedule_s = schedule_s
        self._gpu_free_at = 0.0  # when the last step in flight ends
        self._stalled_since = -1.0  # since when decodes wait for steps without them, negative if they don't
        self._thread_free_at = 0.0  # when its launches are done
        # SIMPLIFIED: no leaps with more than two steps in flight; effect: slower, same rows.
        self._leaps = leaps and pipeline_depth <= 2
        self._on_end = on_end
        self._records_steps = recorder.steps is not None
        self._front_end = front_end
        self._mover = mover
        self._held: Batch | None = None  # a step that waits for its KV
        self._held_at = 0.0  # since when
        self._num_moving = 0  # moves that it waits for
        self._after: list[Move] = []  # moves that start when it has ended
        self._moves_along = False  # it computes the first layers while the KV of the last ones arrives
        self._knows_time = scheduler.knows_time
        self._pads = scheduler.pads_decodes
        self.journal = Journal(recorder, replica, step_model.terms, graphs)
        self._totals = self.journal.totals
        self._flights: deque[Flight] = deque()
        self._leap = Leap()
        self._is_leaping = False
        self._is_awake = False  # the alarm is set
        self._alarm = Alarm(clock, self._ring, STEP_END)

    def submit(self, request: Request) -> None:
        """Takes in a request now, or rejects one that can never be served."""
        if self._knows_time:
            self.scheduler.now = self._clock.now
        refusal = self.scheduler.add(request)
        if refusal is not None:
            self.journal.rejected(request, refusal)
            self._on_end(self.replica, request.index, self._clock.now)
        elif self._is_leaping:
            self._cut(self._leap)
        elif not self._is_awake:
            # An idle engine starts once everything that happens at this instant has happened.
            self._is_awake = True
            now, front_end = self._clock.now, self._front_end
            self._alarm.set(now + front_end.hold_s(now) if front_end.takes_time else now)
        if self._mover is not None:
            self._start_moves(None)

    def _moved(self, move: Move) -> None:
        """Hears that a move has ended: a step that waited for it may start, or requests may be admitted."""
        now = self._clock.now
        holds_step = move.when is When.BEFORE or move.when is When.ALONG
        if holds_step:
            self._num_moving -= 1
        if self._knows_time:
            self.scheduler.now = now
        may_go_on = self.scheduler.moved(move)
        if self._held is not None:
            if not self._num_moving:
                self._alarm.set(now)
        elif not (may_go_on or holds_step):
            pass  # nobody waited for it
        elif self._is_leaping:
            self._cut(self._leap)
        elif not self._is_awake:
            self._is_awake = True
            self._alarm.set(now)
        self._start_moves(None)

    def _start_moves(self, batch: Batch | None) -> bool:
        """Starts the moves that the scheduler has decided, `batch` with them; False if it must wait."""
        if self._mover is None or not self.scheduler.moves:
            return True
        moves = self.scheduler.moves.copy()
        self.scheduler.moves.clear()
        for move in moves:
            if move.when is When.AFTER and batch is not None:
                self._after.append(move)
                continue
            if move.when is When.BEFORE or move.when is When.ALONG:
                self._num_moving += 1
                self._moves_along = move.when is When.ALONG and (self._moves_along or self._num_moving == 1)
            self._mover.start(move, self._moved)
        if batch is None or not self._num_moving:
            return True
        self._held, self._held_at = batch, self._clock.now
        return False

    def _start_after(self, end_at: float) -> None:
        """Lets the moves begin that need what the step just launched computes."""
        assert self._mover is not None, "only a mover's engine has moves"
        for move in self._after:
            self._mover.start(move._replace(start_at=end_at), self._moved)
        self._after = []

    def num_blocks_used(self) -> int:
        """Returns the blocks that requests hold now, in the middle of a leap, too."""
        kv, leap, now = self.scheduler.kv, self._leap, self._clock.now
        used = kv.num_blocks - kv.num_free
        if not self._is_leaping:
            return used
        ending = next((flight[0] for flight in self._flights if flight[1] >= now), 0)
        if not ending:
            ending, _ = leap.first_end_from(now)
        num_decided = min(ending - 1 + self._depth - leap.after_step, leap.line.num_steps)
        growth = self.scheduler.block_growth()
        rounds, rest = divmod(max(num_decided, 0), len(growth))
        return used + rounds * sum(growth) + sum(growth[:rest])

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
        if self._knows_time:
            self.scheduler.now = self._clock.now
        if self._is_leaping:
            leap = self._leap
            sees_arrival = leap.has_arrival
            is_leaping = self._land(leap) or self._decide(sees_arrival)
        else:
            sees_arrival = not flights
            if flights and flights[0][1] <= self._clock.now:
                self._complete(flights[0][0])
            if self._held is not None:
                if self._num_moving:
                    if flights:
                        alarm.set(flights[0][1])
                    return
                held, self._held = self._held, None
                self._launch(held)
            is_leaping = self._decide(sees_arrival)
        self._is_leaping = is_leaping
        if self._knows_time and self.scheduler.dropped:
            self._give_up()
        # The only line where time passes.
        if is_leaping:
            alarm.set(self._leap.wake_at)
        elif flights:
            alarm.set(self._wakes_at())
        elif self._held is None:
            self._is_awake = False
            due_at = self.scheduler.due_at
            if due_at is not None:
                alarm.set(due_at if due_at > self._clock.now else self._clock.now)

    def _give_up(self) -> None:
        """Notes the requests that the scheduler has given up."""
        dropped = self.scheduler.dropped.copy()
        self.scheduler.dropped.clear()
        for request, reason in dropped:
            self.journal.rejected(request, reason)
            self._on_end(self.replica, request.index, self._clock.now)

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
        may_leap, powered = self._leaps and not sees_arrival and self._stalled_since < 0, self._powered
        if self._mover is not None:
            self._start_moves(None)
        while True:
            num_in_flight = len(flights)
            if num_in_flight < depth and self._thread_free_at > self._clock.now:
                return False
            # The output of the first of `depth` flights may come before the leap's first decision.
            is_seen = num_in_flight == depth and flights[0][3]
            may_leap = may_leap and (powered is None or powered.is_at_full_clock)
            if self.pipeline is not None:
                may_leap = may_leap and self.pipeline.is_at_full_clock
            if may_leap and num_in_flight >= depth - 1 and not is_seen and self._take_off():
                return True
            if num_in_flight >= depth:
                return False
            batch = scheduler.schedule()
            if batch is None and self._mover is not None:
                self._start_moves(None)
            if batch is None:
                if flights or not scheduler.num_waiting:
                    return False
                # It preempted all there was, and nothing in flight will wake the engine: decide again.
                batch = scheduler.schedule()
                if batch is None:
                    self._start_moves(None)
                    return False
            if self._mover is not None and not self._start_moves(batch):
                return False
            self._launch(batch)
            may_leap = self._leaps and self._stalled_since < 0

    def _launch(self, batch: Batch) -> None:
        """Prices a step and puts it behind those in flight."""
        now, flights, graphs = self._clock.now, self._flights, self._graphs
        before_ended_at = self._gpu_free_at
        started_at = before_ended_at if before_ended_at > now else now
        work = batch if batch.computed is None else batch.computed
        num_tokens, decodes = work.num_tokens, work.decodes
        is_captured = num_tokens <= graphs.largest and not (
            graphs.decodes_only and (batch.chunks or batch.completing)
        )
        num_padded = graphs.pad(num_tokens) if is_captured else num_tokens
        groups = (decodes,) if decodes.count else ()
        shape = StepShape(work.chunks, groups, num_padded, work.num_sampled, is_captured)
        if self.pipeline is not None:
            start_at = now + self._schedule_s if batch.chunks and not flights else now
            self._launch_through(batch, self.pipeline.run(batch.step, shape, now, start_at), num_padded)
            return
        cost = self.step_model.predict(shape)
        if batch.chunks:
            if not flights:
                started_at += self._schedule_s
            if self._launches_in_thread and cost.cpu_s:
                self._occupy_thread(now + cost.cpu_s)
            if self._execution is not None:
                cost = self._execution.run(cost, now, started_at)
        elif self._powered is not None:
            cost = self._powered.run_decodes(cost, started_at)
        if self._moves_along:
            # Its KV is there now: all but the last layer may have been computed already.
            self._moves_along = False
            layers = 1 if self._mover is None else self._mover.num_layers
            started_at = max(before_ended_at, self._held_at, now - cost.duration_s * (layers - 1) / layers)
            # And launched: the thread waits for nothing.
            self._thread_free_at = min(self._thread_free_at, started_at + cost.duration_s)
        self._gpu_free_at = end_at = started_at + cost.duration_s
        if self._after:
            self._start_after(end_at)
        flights.append((batch.step, end_at, batch.completing, batch.finishing, batch.num_sampled, end_at))
        # Decodes that steps leave out got their last token before the first of these steps.
        decodes_ended_at = before_ended_at if self._stalled_since < 0 else self._stalled_since
        self._stalled_since = decodes_ended_at if batch.stalls_decodes else -1.0
        span = (started_at, end_at)
        self.journal.stepped(batch, cost, num_padded, now, span, before_ended_at, decodes_ended_at)

    def _launch_through(self, batch: Batch, passage: Passage, num_padded: int) -> None:
        """Puts a step that passes stages behind those in flight; its row begins where the one before ended.

        SIMPLIFIED: a step waits for all layers of KV that arrives along with it; effect: none without tiers,
        else what the last layers take to load.
        """
        pipeline, before_ended_at = self.pipeline, self._gpu_free_at
        assert pipeline is not None, "only a pipeline's steps pass stages"
        started_at, end_at, cost = passage
        self._moves_along = False
        self._gpu_free_at = end_at
        if self._after:
            self._start_after(end_at)
        self._flights.append(
            (batch.step, end_at, batch.completing, batch.finishing, batch.num_sampled, end_at)
        )
        followed_at = pipeline.ended_at(batch.follows)
        if before_ended_at > started_at:
            cost = cost.over(end_at - before_ended_at)
            started_at = before_ended_at
        decodes_ended_at = before_ended_at if followed_at is None else followed_at
        span = (started_at, end_at)
        now = self._clock.now
        self.journal.stepped(batch, cost, num_padded, now, span, before_ended_at, decodes_ended_at)
        for live, step in batch.strays:
            ended_at = pipeline.ended_at(step)
            live.last_token_at = decodes_ended_at if ended_at is None else ended_at

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
        computed = scheduler.computed_decodes(decodes) if self._pads else decodes
        line = self.step_model.decode_line(computed, num_steps)
        num_planned = line.num_steps
        if num_planned < num_steps or not ends_with_last_token:
            num_planned += 1 - self._depth  # the step after these is to be decided in full
        leap.plan(scheduler.step, started_at, decodes, line, num_planned)
        if self._records_steps:
            leap.found = self._found(scheduler.num_waiting)
        return not self._knows_time or self._ends_when_due(leap)

    def _ends_when_due(self, leap: Leap) -> bool:
        """Ends the leap with the first step that ends when the scheduler is due; False if none may begin."""
        due_at = self.scheduler.due_at
        if due_at is None or leap.wake_at <= due_at:
            return True
        if due_at <= leap.started_at:
            return False
        leap.wake_step, leap.wake_at = leap.first_end_from(due_at)
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
        if leaps_on:
            self._start_moves(None)
        return leaps_on

    def _commit(self, leap: Leap, num_steps: int) -> None:
        scheduler, step = self.scheduler, leap.after_step + num_steps
        end_at = leap.wake_at if step == leap.wake_step else leap.end_of(num_steps)
        self._gpu_free_at = end_at
        if self._powered is not None:
            self._powered.decode(leap.started_at, end_at)
        if self.pipeline is not None:
            self.pipeline.decode(leap.started_at, end_at)
            self.pipeline.leapt(leap.decodes, num_steps, end_at - leap.started_at)
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
            computed = scheduler.computed_decodes(decodes) if self._pads else decodes
            leap.plan(scheduler.step, started_at, decodes, self.step_model.decode_line(computed, 1), 1)
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
            step, handled_at, completing, finishing, num_sampled, ended_at = flights.popleft()
            if self._micro_batches is not None:
                self._micro_batches.returned(step)
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
                    if live.group is not None and not live.group.ended(live):
                        continue  # other samples of the request go on
                    self.journal.finished(live, ended_at, heard_at)
                    self._on_end(self.replica, live.index, heard_at)
