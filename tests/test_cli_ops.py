"""`simllm ops`: a table in, the same with times out; or a line for every malformed row, and no table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from simllm.cli import app
from simllm.cli_ops import ADDED

HEADER = (
    "name,op,dtype,m,n,k,batch,query_len,context_len,num_q_heads,num_kv_heads,head_dim,num_bytes,num_gpus"
)
ROWS = """\
qkv,gemm,bf16,4096,6144,4096,,,,,,,,
"a, b",gemm,fp8,16,4096,14336,,,,,,,,
chunk,attention_prefill,,,,,1,2048,1024,32,8,128,,
decode,attention_decode,fp8,,,,64,,8192,32,8,128,,
reduce,all_reduce,,,,,,,,,,,16777216,4
norm,rms_norm,bf16,4096,4096
"""


def ops(table: str, folder: Path, *options: str) -> Result:
    path = folder / "rows.csv"
    path.write_text(table)
    return CliRunner().invoke(app, ["ops", str(path), "--profile", "h200-sxm", *options])


def test_every_row_comes_back_with_its_cells_and_its_price(tmp_path):
    out = tmp_path / "out.csv"
    assert ops(f"{HEADER}\n{ROWS}", tmp_path, "-o", str(out)).exit_code == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["name"] for row in rows] == ["qkv", "a, b", "chunk", "decode", "reduce", "norm"]
    assert list(rows[0])[-5:] == list(ADDED)
    assert float(rows[0]["flops"]) == 2 * 4096 * 6144 * 4096
    assert all(float(row["time_us"]) > 0 and row["bound"] for row in rows)
    assert rows[0]["extrapolated"] == "false"
    assert (rows[4]["bound"], rows[4]["bytes"]) == ("link", "16777216")


def test_without_a_file_the_table_is_printed(tmp_path):
    printed = ops(f"{HEADER}\n{ROWS}", tmp_path).stdout
    assert printed.splitlines()[0] == f"{HEADER},{','.join(ADDED)}"
    assert len(printed.splitlines()) == 7


def test_the_same_rows_give_the_same_bytes(tmp_path):
    assert ops(f"{HEADER}\n{ROWS}", tmp_path).stdout == ops(f"{HEADER}\n{ROWS}", tmp_path).stdout


def test_kernels_can_be_chosen(tmp_path):
    table = "op,m,n,k\ngemm,4096,4096,4096\n"
    told = {ops(table, tmp_path, "--kernels", choice).stdout for choice in ("vllm", "triton", "gemm=cublas")}
    assert len(told) == 2


def test_every_malformed_row_is_told_with_its_line_and_nothing_is_written(tmp_path):
    out = tmp_path / "out.csv"
    result = ops(
        "op,m,n,k\ngem,1,2,3\ngemm,1,,x\n\nrms_norm,3,4,,5\ngemm,1,16,16\n", tmp_path, "-o", str(out)
    )
    path = tmp_path / "rows.csv"
    assert str(result.exception).splitlines() == [
        f"{path}:2: op 'gem' is unknown; did you mean 'gemm'?",
        f"{path}:3: gemm needs n",
        f"{path}:3: k must be a whole number of at least 1, got 'x'",
        f"{path}:5: 5 cells, but 4 columns",
    ]
    assert not out.exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", ":1: no column 'op'"),
        ("m,n,k\n1,2,3\n", ":1: no column 'op'"),
        ("op,m,m\n", ":1: column 'm' is there twice"),
        ("op,time_us\n", ":1: column 'time_us' is there already"),
        ("op,m,n,k\n", ": holds no operations"),
        ("op,dtype,m,n\nsoftmax,bf16,0,8\n", ":2: m must be a whole number of at least 1, got '0'"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path, table, message):
    assert message in str(ops(table, tmp_path).exception)
