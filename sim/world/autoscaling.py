"""An autoscaler in time: it looks at a pool now and then, and launches or drains replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan

from simpy.events import Event

from ..policy.autoscaler import Autoscaler, AutoscalerSpec
from .clock import ARRIVAL, Alarm, Clock
from .fleet import Fleet, Place, State
from .recorder import Recorder, Status


class PoolScaler:
    """Keeps one pool at the size that its autoscaler wants, until `is_over()`.

    ready_s: from the launch of a replica until it serves [s]. limits_s: the SLO's, by metric [s].
    """

    def __init__(
        self,
        clock: Clock,
        fleet: Fleet,
        recorder: Recorder,
        spec: AutoscalerSpec,
        *,
        pool: int,
        ready_s: float,
        limits_s: Mapping[str, float],
        is_over: Callable[[], bool],
    ) -> None:
        self._clock = clock
        self._fleet = fleet
        self._recorder = recorder
        self._spec = spec
        self._policy = Autoscaler(spec)
        self._pool = pool
        self._ready_s = ready_s
        self._limits_s = limits_s
        self._is_over = is_over
        self._places = [place for place in fleet.places if place.pool == pool]
        self._alarm = Alarm(clock, self._look, ARRIVAL)
        self.is_set = False
        if spec.metric == "slo":
            fleet.answered[pool] = []

    def start(self) -> None:
        """Sets off the next look."""
        self.is_set = True
        self._alarm.set(self._clock.now + self._spec.sync_s)

    def _look(self, _: Event) -> None:
        self.is_set = False
        if self._is_over():
            return
        now = self._clock.now
        current = [p for p in self._places if p.state in (State.STARTING, State.SERVING, State.DOWN)]
        desired = self._policy.desired(now, len(current), self._metric(current))
        if desired > len(current):
            empty = [place for place in self._places if place.state is State.EMPTY]
            for place in empty[: desired - len(current)]:
                self._fleet.totals.num_launches += 1
                self._fleet.launch(place, self._ready_s)
        # Those that do not serve yet go first, then those with the fewest requests.
        for place in sorted(current, key=self._cost_of_drain)[: max(len(current) - desired, 0)]:
            self._fleet.drain(place)
        self.start()

    def _cost_of_drain(self, place: Place) -> int:
        return self._fleet.num_outstanding[place.replica] if place.state is State.SERVING else -1

    def _metric(self, current: list[Place]) -> float | None:
        """Returns the sum of the metric; what does not serve yet uses nothing, as in Kubernetes."""
        fleet, serving = self._fleet, [p.replica for p in current if p.state is State.SERVING]
        match self._spec.metric:
            case "outstanding":
                return float(sum(fleet.num_outstanding[replica] for replica in serving) + fleet.num_homeless)
            case "waiting":
                return float(sum(map(fleet.num_waiting, serving)) + fleet.num_homeless)
            case "kv_use":
                return sum(map(fleet.kv_use, serving))
            case "slo":
                return self._attainment()
            case "schedule":
                return None

    def _attainment(self) -> float | None:
        """Returns the share within the SLO of the answers since the last look."""
        recorder, answered = self._recorder, self._fleet.answered[self._pool]
        done = [index for index in answered if recorder.status[index] == Status.FINISHED]
        answered.clear()
        return sum(map(self._meets, done)) / len(done) if done else None

    def _meets(self, index: int) -> bool:
        recorder = self._recorder
        arrived_at, first_at = recorder.arrived_at[index], recorder.first_token_at[index]
        finished_at, num_tokens = recorder.finished_at[index], recorder.output_tokens[index]
        decode_s = finished_at - first_at
        took_s = {
            "ttft": first_at - arrived_at,
            "tpot": decode_s / (num_tokens - 1) if num_tokens > 1 else 0.0,
            "e2el": finished_at - arrived_at,
        }
        assert not isnan(finished_at), "a finished request has an end"
        return all(took_s[metric] <= limit_s for metric, limit_s in self._limits_s.items())
