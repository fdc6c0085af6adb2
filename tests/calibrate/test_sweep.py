"""A sweep appends what it measures, resumes where it stopped, and loses nothing."""

from __future__ import annotations

import pytest

from simllm.calibrate.compiled import Compiled
from simllm.calibrate.plan import make_plan
from simllm.calibrate.samples import parts_folder, read_samples
from simllm.calibrate.sweep import PART_SAMPLES, sweep
from simllm.calibrate.timer import Measurement
from simllm.errors import CalibrationError

HOST = {"name": "NVIDIA Test", "date": "2026-01-01"}
COMPILED = Compiled("_kernel", 168, 2, 4096, "BLOCK_M=128 num_warps=8")
POINTS = make_plan(["rms_norm"])[:60]


class FakeTimer:
    """Times every point at 5 us; keeps what it was asked, and raises at chosen calls."""

    def __init__(self, raises: dict[int, BaseException] | None = None, spread: float = 0.01) -> None:
        self.asked: list[object] = []
        self.spread = spread
        self.raises = raises or {}

    def __call__(self, point):
        self.asked.append(point)
        if (error := self.raises.get(len(self.asked))) is not None:
            raise error
        return Measurement(5e-6, self.spread, 10, 1980.0, 300.0, 345.0, 90.0, COMPILED)


def test_rows_carry_point_time_work_clock_and_host(tmp_path):
    path = tmp_path / "samples.parquet"
    assert sweep(POINTS[:3], path, FakeTimer(), host=HOST, budget_s=1e9).num_new == 3
    samples, host = read_samples(path)
    assert [sample.point for sample in samples] == list(POINTS[:3])
    assert host == HOST
    first = samples[0]
    assert (first.time_us, first.clock_mhz, first.is_noisy) == (pytest.approx(5.0), 1980.0, False)
    # With the residual fused, two reads and two writes of bf16.
    assert first.hbm_bytes == 4 * first.point.m * first.point.n * 2


def test_a_second_sweep_measures_only_what_is_missing(tmp_path):
    path = tmp_path / "samples.parquet"
    sweep(POINTS[:10], path, FakeTimer(), host=HOST, budget_s=1e9)
    timer = FakeTimer()
    state = sweep(POINTS, path, timer, host=HOST, budget_s=1e9)
    assert (state.num_new, state.num_done, state.num_points) == (50, 60, 60)
    assert timer.asked == list(POINTS[10:])
    assert len(read_samples(path)[0]) == 60


def test_an_interrupt_keeps_every_row_measured_before_it(tmp_path):
    path = tmp_path / "samples.parquet"
    stop_at = PART_SAMPLES + 5
    with pytest.raises(KeyboardInterrupt):
        sweep(POINTS, path, FakeTimer({stop_at: KeyboardInterrupt()}), host=HOST, budget_s=1e9)
    assert len(read_samples(path)[0]) == stop_at - 1
    assert not parts_folder(path).exists()
    assert sweep(POINTS, path, FakeTimer(), host=HOST, budget_s=1e9).num_new == len(POINTS) - stop_at + 1


def test_the_budget_ends_a_sweep_at_the_next_point(tmp_path):
    ticks = iter(range(1000))
    state = sweep(
        POINTS, tmp_path / "s.parquet", FakeTimer(), host=HOST, budget_s=8, clock=lambda: float(next(ticks))
    )
    # The clock reads 0 at the start, then four times a point: before it, around it, and for its progress.
    assert (state.num_new, state.elapsed_s) == (2, 8.0)


def test_a_row_says_what_measuring_it_cost_and_what_the_compiler_made(tmp_path):
    path = tmp_path / "s.parquet"
    ticks = iter(range(1000))
    sweep(POINTS[:1], path, FakeTimer(), host=HOST, budget_s=1e9, clock=lambda: float(next(ticks)))
    (sample,) = read_samples(path)[0]
    assert sample.wall_s == 1.0
    assert (sample.kernel, sample.registers, sample.spills, sample.shared_bytes) == ("_kernel", 168, 2, 4096)
    assert sample.tile == "BLOCK_M=128 num_warps=8"
    assert (sample.clock_before_mhz, sample.power_before_w) == (345.0, 90.0)


def test_the_state_counts_what_stayed_noisy_and_what_was_refused(tmp_path):
    states = []
    timer = FakeTimer({2: ValueError("no such tile")}, spread=0.5)
    sweep(POINTS[:3], tmp_path / "s.parquet", timer, host=HOST, budget_s=1e9, report=states.append)
    assert [(state.num_noisy, state.num_failed) for state in states] == [(1, 0), (1, 1), (2, 1)]
    assert states[-1].last is not None


def test_a_kernel_that_refuses_a_size_is_a_row_with_its_error(tmp_path):
    path = tmp_path / "samples.parquet"
    sweep(POINTS[:3], path, FakeTimer({2: ValueError("no such tile")}), host=HOST, budget_s=1e9)
    assert [sample.error for sample in read_samples(path)[0]] == ["", "no such tile", ""]


def test_a_broken_gpu_ends_the_sweep_and_keeps_its_rows(tmp_path):
    path = tmp_path / "samples.parquet"
    with pytest.raises(CalibrationError, match="broke"):
        sweep(POINTS, path, FakeTimer({4: CalibrationError("broke the context")}), host=HOST, budget_s=1e9)
    assert len(read_samples(path)[0]) == 3


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(CalibrationError, match="calibrate -o PROFILE"):
        read_samples(tmp_path / "none.parquet")


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    path = tmp_path / "samples.parquet"
    path.write_text("no parquet")
    with pytest.raises(CalibrationError, match="no table of samples"):
        read_samples(path)
