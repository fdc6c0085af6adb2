"""The Python blocks of the catalog's documents run and print what their comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simllm.hwmodels import model_config

DOCS = Path(model_config.__file__).parent.parent / "docs"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("document", ["add-a-model.md", "add-a-device.md"])
def test_the_examples_print_what_they_promise(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l4.yaml").write_text(blocks(document, "yaml")[0])
    (code,) = blocks(document, "python")
    exec(compile(code, document, "exec"), {})
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised
    assert len(promised) == 2
