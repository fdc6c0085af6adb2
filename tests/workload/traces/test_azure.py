from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simllm.errors import TraceError
from simllm.sim.workload import Demand

Build = Callable[..., Demand]
Put = Callable[[str, str], str]

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
OF_2023 = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"


def test_instants_count_from_the_first_request(build: Build, put: Put) -> None:
    demand = build({"kind": "azure", "path": put("a.csv", HEADER + OF_2023)})
    assert demand.arrived_at.tolist() == [0.0, 4.314579]
    assert demand.prompt_tokens.tolist() == [374, 396]
    assert demand.output_tokens.tolist() == [44, 109]
    assert (demand.origin, demand.notes) == ("azure trace a.csv", ())


def test_the_form_of_2024_has_a_zone_and_whole_seconds(build: Build, put: Put) -> None:
    text = "2024-05-12 23:59:59.500000+00:00,3,1\n2024-05-13 00:00:00+00:00,4,2\n"
    demand = build({"kind": "azure", "path": put("a.csv", HEADER + text)})
    assert demand.arrived_at.tolist() == [0.0, 0.5]


def test_a_gzipped_file_with_other_columns_in_another_order_is_read(build: Build, put: Put) -> None:
    text = "GeneratedTokens,x,TIMESTAMP,ContextTokens\r\n7,?,2023-11-16 18:00:00,5\r\n"
    demand = build({"kind": "azure", "path": put("a.csv.gz", text)})
    assert (demand.prompt_tokens.tolist(), demand.output_tokens.tolist()) == ([5], [7])


def test_only_the_first_rows_are_played_if_so_asked(build: Build, put: Put) -> None:
    path = put("a.csv", HEADER + OF_2023)
    demand = build({"kind": "azure", "path": path, "num_requests": 1})
    assert demand.prompt_tokens.tolist() == [374]


def test_unsorted_rows_are_sorted_and_noted(build: Build, put: Put) -> None:
    text = "2023-11-16 18:00:02,1,1\n2023-11-16 18:00:00,2,2\n2023-11-16 18:00:02,3,3\n"
    demand = build({"kind": "azure", "path": put("a.csv", HEADER + text)})
    assert demand.arrived_at.tolist() == [0.0, 2.0, 2.0]
    assert demand.prompt_tokens.tolist() == [2, 1, 3]
    assert demand.notes == ("sorted by arrival: 1 rows came before the row above them",)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", ":1: has no column TIMESTAMP"),
        (
            "TIMESTAMP,ContextToken,GeneratedTokens\n",
            ":1: has no column ContextTokens; did you mean 'ContextToken'?",
        ),
        (HEADER, ": holds no requests"),
        (
            HEADER + OF_2023 + "2023-11-16 18:15:51,-5,9\n",
            ":4: ContextTokens must be a whole number >= 1 (got '-5')",
        ),
        (
            HEADER + "\n" + OF_2023 + "2023-11-16 18:15:51,0,9\n",
            ":5: ContextTokens must be a whole number >= 1",
        ),
        (HEADER + "2023-11-16 18:15:51,5,0\n", ":2: GeneratedTokens must be a whole number >= 1 (got '0')"),
        (HEADER + "2023-11-16 18:15:51,5,\n", ":2: GeneratedTokens must be a whole number >= 1 (got '')"),
        (HEADER + "2023-11-16 18:15:51,5.5,9\n", ":2: ContextTokens must be a whole number >= 1 (got '5.5')"),
        (HEADER + "18 o'clock,5,9\n", ':2: TIMESTAMP must be a date and time (got "18 o\'clock")'),
        (HEADER + OF_2023 + "2023-11-16 18:15:51,5\n", ":4: has 2 cells instead of 3"),
    ],
)
def test_the_first_bad_line_is_named(build: Build, put: Put, text: str, what: str) -> None:
    path = put("a.csv", text)
    with pytest.raises(TraceError) as caught:
        build({"kind": "azure", "path": path})
    assert f"a.csv{what}" in str(caught.value)


def test_rows_with_and_without_a_zone_do_not_mix(build: Build, put: Put) -> None:
    path = put("a.csv", HEADER + "2024-05-12 23:59:59+00:00,3,1\n2024-05-13 00:00:00,4,2\n")
    with pytest.raises(TraceError, match=r"a\.csv"):
        build({"kind": "azure", "path": path})


def test_a_file_that_is_no_text_is_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00T")
    with pytest.raises(TraceError, match=r"a\.csv: is not UTF-8 text"):
        build({"kind": "azure", "path": "a.csv"})


def test_a_limited_file_is_not_read_to_its_end(build: Build, put: Put) -> None:
    # Four megabytes, of which one is read at a time; the last row is malformed.
    rows = "2023-11-16 18:15:51.0000000,5,9\n" * 120_000
    path = put("a.csv", HEADER + rows + "2023-11-16 18:15:52,5,x\n")
    assert len(build({"kind": "azure", "path": path, "num_requests": 40_000})) == 40_000
    with pytest.raises(TraceError, match=r"a\.csv:120002: GeneratedTokens"):
        build({"kind": "azure", "path": path})
