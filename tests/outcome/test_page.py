"""Pages of plots: what stands in the way is told before anything is simulated; points are thinned evenly."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from simllm.errors import SimllmError
from simllm.sim.outcome.page import MAX_POINTS, cdf_points, check_plots, html_page, thinned


def test_a_file_in_the_way_is_a_user_s_error(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("", encoding="utf-8")
    with pytest.raises(SimllmError, match="is a file; the plots need a folder"):
        check_plots(tmp_path / "plots")


def test_without_plotly_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(SimllmError, match=r"pip install 'simllm\[report\]'"):
        check_plots(tmp_path)


def test_a_page_fits_a_phone_and_the_reader_s_mode_and_escapes_its_texts() -> None:
    pytest.importorskip("plotly")
    page = html_page("a <b>", "c & d", ["<p>part</p>"], style=".own { }")
    head = page[: page.index("<script>")] + page[page.index("<style>") :]
    assert 'name="viewport" content="width=device-width' in head
    assert "@media (prefers-color-scheme: dark)" in head
    assert "a &lt;b&gt;" in head
    assert "c &amp; d" in head
    assert ".own { }" in head


def test_a_distribution_ends_at_one_and_leaves_out_what_is_not_known() -> None:
    assert cdf_points(np.array([3.0, np.nan, 1.0])) == {"x": [1.0, 3.0], "y": [0.5, 1.0]}


def test_thinning_keeps_first_and_last_and_no_more_than_it_may() -> None:
    places = thinned(100_000)
    assert (places[0], places[-1], len(places)) == (0, 99_999, MAX_POINTS)
    assert thinned(3) == [0, 1, 2]
