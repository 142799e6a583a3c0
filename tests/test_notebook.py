"""The notebook for Colab runs, in small and on a CPU."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, TINY

NOTEBOOK = json.loads((ROOT / "notebooks" / "colab.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def tagged(cell: dict[str, Any], tag: str) -> bool:
    return tag in cell["metadata"].get("tags", ())


def test_it_is_stored_without_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE)


def test_its_cells_run_one_after_the_other(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)  # the first cell finds the repository from here, and installs nothing
    names: dict[str, Any] = {}
    for number, cell in enumerate(CODE):
        source = "".join(cell["source"]).replace("bpe_4096", "bpe_512")
        exec(compile(source, f"cell {number}", "exec"), names)
        if tagged(cell, "settings"):
            names |= {"RUNS": str(tmp_path / "runs"), "DATA": str(tiny_data)}
            given = [s for s in names["SETTINGS"] if s.partition("=")[0] not in ("runs_dir", "data_dir", "max_steps")]
            names["SETTINGS"] = [*given, *TINY, f"runs_dir={names['RUNS']}", f"data_dir={names['DATA']}"]
    said = capsys.readouterr().out
    assert "done: 12 steps" in said
    assert "\nclass " in said
    assert (tmp_path / "runs" / "notebook" / "report" / "curves.png").is_file()
    names["run"]("train.py", *names["SETTINGS"])  # the session ended, and the cell is run again
    assert "nothing to do" in capsys.readouterr().out
