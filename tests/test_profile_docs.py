"""docs/profile.md shows what the shipped profile says, and its example runs."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "profile.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_shipped_profile():
    script = runpy.run_path(str(ROOT / "docs" / "generate_profile.py"))
    assert script["page"](TEXT) == TEXT, "run `python docs/generate_profile.py`"


def test_the_example_prints_what_its_comment_says():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/profile.md", "exec"), {})
    assert printed.getvalue().strip() == re.findall(r"# (power \w+)", code)[0]
