from __future__ import annotations

from simllm.sim.workload.streams import stream


def test_the_same_seed_and_name_give_the_same_numbers() -> None:
    assert stream(7, "arrivals").random(5).tolist() == stream(7, "arrivals").random(5).tolist()


def test_another_name_or_seed_gives_other_numbers() -> None:
    first = stream(7, "arrivals").random(5).tolist()
    assert first != stream(7, "output_tokens").random(5).tolist()
    assert first != stream(8, "arrivals").random(5).tolist()


def test_what_a_seed_means_does_not_change() -> None:
    # PCG64 under SeedSequence(3, spawn_key=(CRC-32 of "arrivals" = 3612958146,)).
    raw = stream(3, "arrivals").bit_generator.random_raw(2)
    assert raw.tolist() == [13121723361495331275, 14584916313727465876]
