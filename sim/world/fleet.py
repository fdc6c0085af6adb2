"""A cluster whose replicas come and go: launched, drained, crashed and started anew.

A replica that comes in place of another has a number of its own, the next one; where it runs is a *place*,
and places are what faults hit and what is paid for. A crash loses the requests that a replica has; they are
sent again as the retry settings say. While no replica serves, requests wait for one.

SIMPLIFIED: a new replica's tiers are those of its number, not of its place; effect: what a node's memory
still holds of a crashed process is not found again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from math import inf

from simpy.events import Event

from ..policy.fault_plan import RetrySpec
from ..policy.router import Refusal, Router
from ..request import Request
from .clock import ARRIVAL, Alarm, Clock
from .cluster import Cluster, OnEnd
from .engine import Engine
from .engine import OnEnd as OnReplicaEnd
from .fallible_engine import FallibleEngine
from .fleet_totals import FleetSize, FleetTotals
from .recorder import Recorder, Status

MakeEngine = Callable[[int, int, OnReplicaEnd], Engine]
"""Makes replica (first argument) of a pool (second) that tells the third of each request that ends."""


class State(Enum):
    """What a place is doing. DOWN: its replica has crashed; LOST: and none comes back by itself."""

    EMPTY = 0
    STARTING = 1
    SERVING = 2
    DRAINING = 3
    DOWN = 4
    LOST = 5


UNPAID = (State.EMPTY, State.LOST)


class Place:
    """Where one replica of `pool` runs, or none."""

    def __init__(self, pool: int) -> None:
        self.pool = pool
        self.state = State.EMPTY
        self.replica = -1
        self.since = 0.0  # when its state began [s]
        self.change = 0  # number of that state: what was set for an earlier one is overtaken


class Fleet(Cluster):
    """Replicas at places.

    on_room() is told of every replica that begins to serve. has_ended(): whether all requests have. pools:
    the pool of each place. autoscaled: pools that an autoscaler keeps at their size, whatever crashes.
    """

    def __init__(
        self,
        clock: Clock,
        router: Router,
        *,
        recorder: Recorder,
        on_end: OnEnd,
        on_room: Callable[[], None],
        has_ended: Callable[[], bool],
        make_engine: MakeEngine,
        pools: Sequence[int],
        autoscaled: frozenset[int],
        retry: RetrySpec,
    ) -> None:
        super().__init__(clock, router, on_end, recorder.refused)
        self._recorder = recorder
        self._make_engine = make_engine
        self._on_room = on_room
        self._has_ended = has_ended
        self._retry = retry
        self._autoscaled = autoscaled
        self.places = [Place(pool) for pool in pools]
        self.place_of: list[Place] = []  # by replica
        self.totals = FleetTotals([0.0] * (max(pools) + 1))
        self.answered: dict[int, list[int]] = {}  # requests that ended, of pools where somebody wants to know
        self._has: list[dict[int, Request]] = []  # by replica
        self._num_useful_tokens: list[int] = []  # likewise, computed for answers that were finished
        self._num_attempts: dict[int, int] = {}
        self._homeless: list[Request] = []  # sent while no replica served

    # -- requests --------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Routes a request, or lets it wait for a replica; it fails if there is no hope of one."""
        if not self.serving:
            if self._is_hopeless():
                self._fail(request, "no_replica")
            else:
                self._homeless.append(request)
            return
        picked = self._router.pick(request, self)
        if isinstance(picked, Refusal):
            self._on_refusal(request, picked)
            self._on_end(request.index, self._clock.now)
            return
        self._has[picked][request.index] = request
        self.num_outstanding[picked] += 1
        self.engines[picked].submit(request)

    def request_ended(self, replica: int, index: int, ended_at: float) -> None:
        """Hears that request `index`, of `replica`, has ended; its client knows at `ended_at` [s]."""
        self._note_use(replica, self._has[replica].pop(index))
        place = self.place_of[replica]
        if place.pool in self.answered:
            self.answered[place.pool].append(index)
        super().request_ended(replica, index, ended_at)
        if place.state is State.DRAINING and not self._has[replica]:
            self._retire(place)

    def _note_use(self, replica: int, request: Request) -> None:
        """Counts the tokens that were computed for a request that has ended."""
        recorder, index = self._recorder, request.index
        if recorder.status[index] != Status.FINISHED:
            return
        # The last token of an answer is not computed, nor are cached ones.
        num_sequences = max(request.num_samples, request.beam_width)
        generated = recorder.output_tokens[index] - num_sequences + recorder.recomputed_tokens[index]
        self._num_useful_tokens[replica] += request.prompt_tokens - recorder.cached_tokens[index] + generated

    @property
    def num_homeless(self) -> int:
        """Requests that wait for a replica to be there at all."""
        return len(self._homeless)

    # -- what autoscalers and faults do ----------------------------------------------------------------------

    def launch(self, place: Place, delay_s: float) -> None:
        """Begins to start a replica at an empty place; it serves `delay_s` later."""
        self._turn(place, State.STARTING)
        self._later(place, delay_s, self.serve)

    def drain(self, place: Place) -> None:
        """Lets a serving replica finish what it has, then go; one that starts, or is down, goes at once."""
        self.totals.num_drained += 1
        if place.state is not State.SERVING:
            self._turn(place, State.EMPTY)
            return
        self.serving.remove(place.replica)
        self._turn(place, State.DRAINING)
        if not self._has[place.replica]:
            self._retire(place)

    def crash(self, place: Place, restart_s: float | None) -> None:
        """Ends a replica now; another takes its place `restart_s` later, None for never."""
        if place.state not in (State.SERVING, State.DRAINING):
            return
        replica, was_serving = place.replica, place.state is State.SERVING
        self.totals.num_crashes += 1
        engine = self.engines[replica]
        assert isinstance(engine, FallibleEngine), "where faults may happen engines can crash"
        engine.crash()
        engine.journal.totals.flush()
        self.totals.lost_tokens += engine.journal.totals.num_tokens - self._num_useful_tokens[replica]
        self._end_life(replica)
        lost, self._has[replica] = list(self._has[replica].values()), {}
        self.num_outstanding[replica] = 0
        if was_serving:
            self.serving.remove(replica)
        if not was_serving or (restart_s is None and place.pool in self._autoscaled):
            self._turn(place, State.EMPTY)
        elif restart_s is None:
            self._turn(place, State.LOST)
        else:
            self._turn(place, State.DOWN)
            self._later(place, restart_s, self.serve)
        for request in lost:
            self._lose(request)
        if self._is_hopeless():
            homeless, self._homeless = self._homeless, []
            for request in homeless:
                self._fail(request, "no_replica")

    def slow(self, place: Place, factor: float, duration_s: float) -> None:
        """Makes a replica slow for a while, or until it is gone."""
        if place.state not in (State.SERVING, State.DRAINING):
            return
        self.totals.num_slowed += 1
        engine = self.engines[place.replica]
        assert isinstance(engine, FallibleEngine), "where faults may happen engines can be slow"
        engine.slow(factor)
        # SIMPLIFIED: the first of two overlapping slow spells ends both; effect: a shorter second one.
        recovery = Alarm(self._clock, lambda _: engine.slow(1.0), ARRIVAL)
        recovery.set(self._clock.now + duration_s)

    def close(self, ended_at: float) -> None:
        """Adds up what lasts until the end of the run [s]."""
        for place in self.places:
            self._count_time(place, ended_at)

    # -- how places change -----------------------------------------------------------------------------------

    def serve(self, place: Place) -> None:
        """Begins to serve with a new replica."""
        replica = len(self.engines)
        self.add(self._make_engine(replica, place.pool, self.request_ended))
        self._has.append({})
        self._num_useful_tokens.append(0)
        self.place_of.append(place)
        place.replica = replica
        self.totals.lives[replica] = (self._clock.now, inf)
        self._turn(place, State.SERVING)
        homeless, self._homeless = self._homeless, []
        for request in homeless:
            self.submit(request)
        self._on_room()

    def _retire(self, place: Place) -> None:
        self._end_life(place.replica)
        self._turn(place, State.EMPTY)

    def _end_life(self, replica: int) -> None:
        began_at, _ = self.totals.lives[replica]
        self.totals.lives[replica] = (began_at, self._clock.now)

    def _turn(self, place: Place, state: State) -> None:
        self._count_time(place, self._clock.now)
        place.state, place.change = state, place.change + 1
        mine = [other.state for other in self.places if other.pool == place.pool]
        num_paid = sum(other not in UNPAID for other in mine)
        self.totals.sizes.append(FleetSize(self._clock.now, place.pool, mine.count(State.SERVING), num_paid))

    def _count_time(self, place: Place, now: float) -> None:
        lasted_s, place.since = max(now - place.since, 0.0), now
        if place.state not in UNPAID:
            self.totals.paid_s[place.pool] += lasted_s
        if place.state in (State.SERVING, State.DRAINING):
            self.totals.up_s += lasted_s
        elif place.state in (State.DOWN, State.LOST):
            self.totals.down_s += lasted_s

    def _later(self, place: Place, delay_s: float, act: Callable[[Place], None]) -> None:
        change = place.change

        def ring(_: Event) -> None:
            if place.change == change and not self._has_ended():
                act(place)

        alarm = Alarm(self._clock, ring, ARRIVAL)
        alarm.set(self._clock.now + delay_s)

    # -- what becomes of lost requests -----------------------------------------------------------------------

    def _lose(self, request: Request) -> None:
        """Sends a request again that a crash has ended, unless that was its last chance."""
        retry, now = self._retry, self._clock.now
        self.totals.num_lost += 1
        self._recorder.lost(request)
        num_attempts = self._num_attempts.get(request.index, 0) + 1
        self._num_attempts[request.index] = num_attempts
        if num_attempts >= retry.max_attempts:
            self._fail(request, "replica_crashed")
            return
        sent_at = now + retry.backoff_s * retry.backoff_factor ** (num_attempts - 1)
        arrived_at = self._recorder.arrived_at[request.index]
        if retry.timeout_s is not None and sent_at - arrived_at > retry.timeout_s:
            self._fail(request, "retry_timeout")
            return
        self.totals.num_retries += 1
        Alarm(self._clock, lambda _: self.submit(request), ARRIVAL).set(sent_at)

    def _fail(self, request: Request, reason: str) -> None:
        self._recorder.failed(request, reason)
        self._on_end(request.index, self._clock.now)

    def _is_hopeless(self) -> bool:
        """Returns whether no replica serves and none will."""
        coming = (State.STARTING, State.SERVING, State.DOWN)
        return not self._autoscaled and all(place.state not in coming for place in self.places)
