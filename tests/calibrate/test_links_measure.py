"""Ranks in processes of their own, here over gloo on the CPU: what fails costs its own row only."""

# ruff: noqa: E402 (what follows can be imported only where torch is)
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="ranks talk through torch.distributed")
if torch.cuda.is_available():
    pytest.skip("without GPUs some points must fail", allow_module_level=True)

from simllm.calibrate.links_measure import measure_links
from simllm.calibrate.links_plan import LinkPoint
from simllm.calibrate.links_samples import read_link_samples

HOST = {"name": "a CPU", "date": "2026-01-01"}
EAGER = LinkPoint("all_reduce", "nccl", 2, "eager", 4096)
UNSUPPORTED = LinkPoint("all_reduce", "torch_one_shot", 2, "graph", 4096)
# Two points of a mode that ends the ranks: CUDA graphs need a GPU.
FATAL = [LinkPoint("broadcast", "nccl", 2, "graph", size) for size in (4096, 8192)]
AFTER = LinkPoint("broadcast", "nccl", 2, "eager", 4096)
PINNED = LinkPoint("host_to_device", "pinned", 1, "eager", 4096)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("links") / "links.parquet"
    points = [EAGER, UNSUPPORTED, *FATAL, AFTER, PINNED]
    num_new = measure_links(points, path, host=HOST, budget_s=120)
    return path, num_new


def row(measured, point):
    return next(sample for sample in read_link_samples(measured[0])[0] if sample.point == point)


def test_a_collective_is_timed(measured):
    sample = row(measured, EAGER)
    assert sample.error == ""
    assert sample.time_us > 0
    assert sample.num_runs >= 9


def test_what_no_rank_can_prepare_is_a_row_with_its_error(measured):
    assert "does not support device type cpu" in row(measured, UNSUPPORTED).error


def test_what_ends_the_ranks_costs_its_kind_and_others_go_on(measured):
    rows = {sample.point for sample in read_link_samples(measured[0])[0]}
    assert row(measured, FATAL[0]).error
    assert FATAL[1] not in rows
    assert row(measured, AFTER).time_us > 0


def test_copies_have_a_process_of_their_own(measured):
    assert row(measured, PINNED).error


def test_the_file_names_its_host(measured):
    assert read_link_samples(measured[0])[1] == HOST
    assert measured[1] == 5


def test_a_second_run_measures_only_what_failed(measured, tmp_path):
    path = tmp_path / "links.parquet"
    path.write_bytes(measured[0].read_bytes())
    assert measure_links([EAGER, AFTER], path, host=HOST, budget_s=60) == 0
    assert measure_links([EAGER, PINNED], path, host=HOST, budget_s=60) == 1


def test_a_spent_budget_measures_nothing(tmp_path):
    path = tmp_path / "links.parquet"
    assert measure_links([EAGER], path, host=HOST, budget_s=0) == 0
    assert not path.exists()


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    def interrupt(progress):
        raise KeyboardInterrupt

    path = tmp_path / "links.parquet"
    with pytest.raises(KeyboardInterrupt):
        measure_links([EAGER, AFTER], path, host=HOST, budget_s=60, report=interrupt)
    assert [sample.point for sample in read_link_samples(path)[0]] == [EAGER]
