"""Threads that wait for each other turn only for a moment: on a busy machine they would hold up the one that they wait for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from running.openmp_spin_count import set_openmp_spin_count
from tests.conftest import ROOT

COMPUTING = ("train", "generate", "evaluate", "verify")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {}),
    ],
)
def test_what_the_environment_says_stays(
    said: dict[str, str], kept: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    set_openmp_spin_count()
    assert {name: value for name, value in os.environ.items() if name == "GOMP_SPINCOUNT"} == kept


def test_it_is_said_before_torch_is_imported() -> None:
    """Of each command that computes, as far as its first import that takes seconds."""
    for command in COMPUTING:
        begin = Path(ROOT, f"{command}.py").read_text().split("set_openmp_spin_count()\n")
        assert len(begin) == 2, command
        program = begin[0] + "import sys; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
