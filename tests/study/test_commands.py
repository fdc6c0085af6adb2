"""`simllm sweep`, `simllm goodput` and `simllm schema study` at the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import sim.small
import yaml
from typer.testing import CliRunner

from simllm.cli import app
from simllm.sim.scenario import SHIPPED_SCENARIOS
from simllm.sim.study.study import Study
from simllm.sim.study.study_file import SHIPPED_STUDIES, load_study
from simllm.sim.study.study_spec import StudySpec

from .small_study import deadly_axis, study, write

STUDIES = sorted(SHIPPED_STUDIES.glob("*.yaml"))


def test_a_sweep_prints_intervals_and_differences_and_keeps_its_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = CliRunner().invoke(app, ["sweep", str(write(tmp_path)), "-o", str(out), "--baseline", "rate=10"])
    assert ran.exit_code == 0, ran.output
    assert {path.name for path in out.iterdir()} == {
        "journal.jsonl", "results.parquet", "intervals.csv", "differences.csv",
    }  # fmt: skip
    assert "difference from rate=10, seed by seed, 95%" in ran.stdout
    assert "TTFT p99 [ms]" in ran.stdout
    assert ran.stderr == f"{out}: 4 points\n"
    frame = pd.read_parquet(out / "results.parquet")
    tidy = pd.read_csv(out / "intervals.csv").set_index(["rate", "metric"])
    wanted = frame[frame["rate"] == 20]["mean_ttft_ms"].mean()
    assert tidy.loc[(20, "mean_ttft_ms"), "mean"] == pytest.approx(wanted)


def test_a_long_table_is_only_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simllm.cli_sweep._MAX_ROWS", 1)
    ran = CliRunner().invoke(app, ["sweep", str(write(tmp_path, seeds=1)), "-o", str(tmp_path / "out")])
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "2 rows, only in the files" in ran.stderr


def test_a_failed_point_is_exit_code_1_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, axes=[{"path": "pools.0.replicas", "values": [1, 0]}])
    ran = CliRunner().invoke(app, ["sweep", str(path), "-o", str(tmp_path / "out")])
    assert ran.exit_code == 1
    assert "2 failed, the first: $.pools[0].replicas: must be greater" in ran.stderr
    assert "req/s" in ran.stdout, "the others are shown all the same"


def test_all_points_failed_is_told_without_a_table(tmp_path: Path) -> None:
    path = write(tmp_path, axes=[], set={"pools.0.model": "llama-3.1-70b"}, seeds=1)
    ran = CliRunner().invoke(app, ["sweep", str(path), "-o", str(tmp_path / "out")])
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "does not fit" in ran.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--baseline", "rate"], "--baseline: must be AXIS=VALUE"),
        (["--set", "pools.0.replica=2"], "unknown field; did you mean 'replicas'"),
        (["--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1|--ray needs Ray"),
    ],
)
def test_a_wrong_option_is_a_user_s_error(options: list[str], message: str, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["sweep", str(write(tmp_path)), "-o", str(tmp_path / "out"), *options])
    assert ran.exit_code == 1 and ran.exception is not None  # `main` makes it one line and exit code 2
    assert re.search(message, str(ran.exception))


def test_python_code_runs_only_if_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, axes=[deadly_axis(tmp_path)], seeds=1)
    options = ["sweep", str(path), "-o", str(tmp_path / "out")]
    assert "--allow-python" in CliRunner().invoke(app, options).stderr
    assert "killed by SIGKILL" in CliRunner().invoke(app, [*options, "--allow-python"]).stderr


def test_goodput_prints_rate_cost_and_curve_and_writes_them(tmp_path: Path) -> None:
    out, told = tmp_path / "out", tmp_path / "told.json"
    scenario = sim.small.write(tmp_path, "workload.num_requests=100")
    ran = CliRunner().invoke(
        app,
        [
            "goodput", str(scenario), "--slo", "ttft_p95=100ms", "--attainment", "0.9", "--seeds", "2",
            "--tolerance", "0.1", "--price", "2.5", "-o", str(out), "--json", str(told),
        ],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    summary = json.loads(told.read_text())
    assert (
        f"Goodput (req/s):                         {summary['request_rate']:g} with 95% confidence"
        in ran.stdout
    )
    assert "2.5 USD per GPU-hour, as given" in ran.stdout
    assert f"--set workload.arrivals.request_rate={summary['field_value']:.6g}" in ran.stdout
    assert "ttft_p95 [%], needs 95" in ran.stdout.replace("┃", "")
    assert {path.name for path in out.iterdir()} == {"curve.csv", "runs.csv", "goodput.html"}
    assert list(pd.read_csv(out / "curve.csv")["request_rate"]) == sorted(
        pd.read_csv(out / "curve.csv")["request_rate"]
    )


def test_the_schema_of_a_study_is_the_one_beside_the_scenarios() -> None:
    ran = CliRunner().invoke(app, ["schema", "study"])
    kept = json.loads((SHIPPED_SCENARIOS / "study.schema.json").read_text(encoding="utf-8"))
    assert json.loads(ran.stdout) == kept == StudySpec.model_json_schema(), "run `make generated`"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_short_asks_a_question_and_makes_scenarios(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40
    assert lines[0] == "# yaml-language-server: $schema=../study.schema.json"
    assert re.fullmatch(r"# [A-Z].*\?", lines[1])
    assert load_study(path.stem)[0].name == path.stem.split("-", 1)[1]
    assert all(point.error is None for point in Study.load(path).points())


def test_the_shipped_study_answers_its_question(tmp_path: Path) -> None:
    loaded, folder = load_study("01-rate-and-tp", ["workload.num_requests=60"])
    few = loaded.model_copy(update={"seeds": 2, "axes": loaded.axes[:1]})
    frame = Study(few, folder).run().intervals(["mean_tpot_ms", "output_throughput_per_gpu"])
    by_tp = frame.pivot(index="tp", columns="metric", values="mean")
    assert by_tp.loc[4, "mean_tpot_ms"] < by_tp.loc[2, "mean_tpot_ms"]
    assert by_tp.loc[4, "output_throughput_per_gpu"] < by_tp.loc[2, "output_throughput_per_gpu"]


def test_the_example_of_the_document_is_a_study() -> None:
    text = (SHIPPED_SCENARIOS.parent / "docs" / "sweep.md").read_text(encoding="utf-8")
    for shown in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        assert StudySpec.model_validate(yaml.safe_load(shown)).axes


def test_a_study_from_python_is_the_same(tmp_path: Path) -> None:
    import simllm

    assert simllm.Study is Study
    assert simllm.Study(study()).run().num_done == 4


@pytest.mark.parametrize("document", ["sweep", "goodput"])
def test_the_python_of_a_document_runs(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (SHIPPED_SCENARIOS.parent / "docs" / f"{document}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, f"{document}.md", "exec"), {})
    assert capsys.readouterr().out
