"""Step times by class: recorded steps as they were composed, priced by a toy in the head."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import ToyStepModel

from simllm.errors import TraceError
from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.step import Chunk
from simllm.sim.validate.recorded_steps import num_preemptions, read_steps
from simllm.sim.validate.step_times import ClassErrors, errors_by_class, price

from .handmade import STEP_HEAD, write_steps

TOY = ToyStepModel(base_s=0.008, token_s=0.0002)
NO_GRAPHS = CudaGraphSizes(())


def errors(path: Path, graphs: CudaGraphSizes = NO_GRAPHS) -> dict[str, ClassErrors]:
    return errors_by_class(price(read_steps(path), TOY, graphs))


def test_a_busy_step_lasts_from_the_output_before_it_to_its_own(tmp_path: Path) -> None:
    # The second and third step begin before the one before has ended; the fourth after a pause.
    rows = ["0,10000,0,0,100:100", "5000,20000,1,101,", "15000,50000,1,102,30:40;20:20", "60000,70000,1,103,"]
    priced = price(read_steps(write_steps(tmp_path, rows)), TOY, NO_GRAPHS)
    steps = [item.step for item in priced]
    assert [(step.kind, round(step.duration_s, 6)) for step in steps] == [("decode", 0.01), ("mixed", 0.03)]
    assert steps[1].chunks == (Chunk(30, 10), Chunk(20, 0))
    assert steps[1].num_tokens == 51


def test_errors_are_those_of_the_summed_times(tmp_path: Path) -> None:
    # Decodes: 8 ms against 10 and 16; mixed: 8 ms + 50 tokens x 0.2 ms = 18 ms against 30 and 36.
    rows = [
        "0,10000,1,100,",
        "5000,20000,1,101,",
        "15000,36000,1,102,",
        "30000,46000,1,103,",
        "40000,76000,1,104,50:50",
        "70000,106000,1,105,50:50",
        "100000,142000,1,106,50:50",
        "130000,172000,1,107,50:50",
    ]
    found = errors(write_steps(tmp_path, rows))
    assert found["decode"].error == pytest.approx(16 / 26 - 1)
    assert found["mixed"].error == pytest.approx(36 / 66 - 1)
    assert found["all"].error == pytest.approx((3 * 8 + 4 * 18) / (10 + 16 + 10 + 30 + 30 + 36 + 30) - 1)


def test_a_step_whose_output_waits_for_the_next_one_s_launch_counts_in_the_sum_only(tmp_path: Path) -> None:
    # The decode before the prompt is handed out 20 ms late, and the prompt's step seems that much shorter.
    rows = [
        "0,10000,1,100,",
        "5000,20000,1,101,",
        "15000,50000,1,102,",
        "45000,60000,1,103,50:50",
        "55000,70000,2,153,",
        "65000,80000,2,155,",
        "75000,90000,2,157,",
    ]
    found = errors(write_steps(tmp_path, rows))
    # Between two decodes are the second (10 ms) and the sixth (10 ms).
    assert (found["decode"].num_steps, found["decode"].measured_s) == (2, pytest.approx(0.02))
    assert "mixed" not in found
    assert found["all"].num_steps == 6


def test_a_step_in_a_cuda_graph_is_launched_sooner_than_one_beyond_it(tmp_path: Path) -> None:
    # Five steps with prompts, the second to fourth larger than the graph: one is between two like it.
    rows = ["0,10000,0,0,8:8", "5000,20000,1,9,90:90", "15000,30000,2,100,90:90", "25000,40000,3,190,90:90"]
    found = errors(write_steps(tmp_path, [*rows, "35000,50000,4,290,8:8"]), CudaGraphSizes((16,)))
    assert (found["mixed"].num_steps, found["all"].num_steps) == (1, 4)


def test_a_cold_step_is_left_out_on_both_sides_and_counted(tmp_path: Path) -> None:
    rows = [f"{10000 * n},{10000 * n + 11000},1,{n}," for n in range(9)]
    rows += ["90000,900000,1,9,", "890000,910000,1,10,"]
    found = errors(write_steps(tmp_path, rows))
    assert found["all"].num_cold == 1
    assert found["all"].measured_s == pytest.approx(8 * 0.010 + 0.010)


def test_preemptions_are_counted_where_they_are_recorded(tmp_path: Path) -> None:
    rows = ["0,10,1,9,,3,0", "5,20,1,10,,3,2", "15,30,1,11,,3,1"]
    assert num_preemptions(read_steps(write_steps(tmp_path, rows))) == 3
    path = tmp_path / "plain.csv"
    path.write_text(STEP_HEAD.replace(",num_waiting,num_preempted", "") + "0,10,1,9,\n", encoding="utf-8")
    assert num_preemptions(read_steps(path)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [(f"{STEP_HEAD}0,x,0,0,,0,0\n", r"steps\.csv:2: "), ("a,b\n", r"steps\.csv:1: has no column")],
)
def test_a_malformed_record_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "steps.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TraceError, match=message):
        read_steps(path)


def test_a_record_that_cannot_be_read_is_a_user_s_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        read_steps(tmp_path / "absent.csv")
    path = tmp_path / "steps.csv.gz"
    path.write_bytes(b"no gzip")
    with pytest.raises(TraceError, match="cannot be read"):
        read_steps(path)
