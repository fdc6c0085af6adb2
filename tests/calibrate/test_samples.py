"""Files of samples of any age are read; what they lack takes its default."""

from __future__ import annotations

import pyarrow.parquet as pq

from simllm.calibrate.samples import SCHEMA, Sample, read_samples, write_samples
from simllm.hwmodels.op_point import OpPoint

SAMPLE = Sample(
    OpPoint("grouped_gemm", "triton", "bf16", m=8, n=16, k=32, num_experts=4, top_k=2, skew=1.5),
    5.0, 0.01, 20, False, 1.0, 2.0, tile="BLOCK_M=16", registers=90, wall_s=0.3,
)  # fmt: skip
LATER = ("kernel_size", "skew", "sustained", "registers", "tile", "wall_s", "clock_before_mhz")


def test_what_is_written_is_what_is_read(tmp_path):
    write_samples(tmp_path / "s.parquet", [SAMPLE], {"name": "GPU"})
    assert read_samples(tmp_path / "s.parquet") == ([SAMPLE], {"name": "GPU"})


def test_a_file_without_the_later_columns_reads_with_their_defaults(tmp_path):
    path = tmp_path / "s.parquet"
    write_samples(path, [SAMPLE], {"name": "GPU"})
    pq.write_table(pq.read_table(path).drop_columns(list(LATER)), path)
    (old,), host = read_samples(path)
    assert (old.point.skew, old.point.sustained, old.registers, old.tile, old.wall_s) == (
        0.0,
        False,
        0,
        "",
        0.0,
    )
    assert (old.point.n, old.time_us, host["name"]) == (16, 5.0, "GPU")


def test_every_column_has_a_type():
    assert set(LATER) < set(SCHEMA.names)
    assert len(SCHEMA.names) == len(set(SCHEMA.names))
