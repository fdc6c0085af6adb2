"""Alarms ring at their instants, arrivals before the ends of steps, and know when they were overtaken."""

from __future__ import annotations

from simllm.sim.world.clock import ARRIVAL, STEP_END, Alarm, Clock


def test_at_one_instant_arrivals_come_first_and_equals_keep_their_order() -> None:
    clock, rung = Clock(), list[str]()
    for name, priority in (("end 1", STEP_END), ("end 2", STEP_END), ("arrival", ARRIVAL)):
        Alarm(clock, lambda _, name=name: rung.append(name), priority).set(1.0)
    clock.run_to_end()
    assert (rung, clock.now) == (["arrival", "end 1", "end 2"], 1.0)


def test_an_alarm_set_anew_is_overtaken_at_the_instants_before() -> None:
    clock, rung = Clock(), list[tuple[float, bool]]()
    alarm = Alarm(clock, lambda _: rung.append((clock.now, alarm.ticket == clock.ticket)), STEP_END)
    for at in (3.0, 1.0, 2.0):
        alarm.set(at)
    clock.run_to_end()
    assert rung == [(1.0, False), (2.0, True), (3.0, False)]


def test_an_alarm_may_set_itself_again() -> None:
    clock, rung = Clock(), list[float]()

    def ring(_: object) -> None:
        rung.append(clock.now)
        if clock.now < 0.3:
            alarm.set(clock.now + 0.1)

    alarm = Alarm(clock, ring, STEP_END)
    alarm.set(0.1)
    while clock.peek() < float("inf"):
        clock.step()
    assert rung == [0.1, 0.2, 0.1 + 0.1 + 0.1]
