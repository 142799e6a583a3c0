"""What the Makefile would run."""

import re
import subprocess
from pathlib import Path

from tests.conftest import ROOT


def commands(target: str, tmp_path: Path) -> str:
    """Of a target, on a machine without an environment."""
    make = ["make", "--dry-run", "--no-print-directory", target, f"VENV={tmp_path / 'venv'}"]
    return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_quickstart_installs_what_a_user_needs_and_the_checks_add_the_tools(tmp_path: Path) -> None:
    for target in ("setup", "quickstart", "tensorboard"):
        assert "[dev]" not in commands(target, tmp_path)
        assert "--editable .\n" in commands(target, tmp_path)
    for target in ("test", "lint", "types", "check"):
        assert commands(target, tmp_path).count("'.[dev]'") == 1


def test_docs_installs_what_builds_them_and_no_other_tools(tmp_path: Path) -> None:
    run = commands("docs", tmp_path)
    assert run.count("'.[docs]'") == 1
    assert "[dev]" not in run
    assert run.rstrip().endswith("python -m documentation")


def test_installing_shows_its_progress(tmp_path: Path) -> None:
    installs = re.findall("pip install.*", commands("check", tmp_path))
    assert len(installs) == 3
    assert not any("--quiet" in line or "-q " in line for line in installs)


def test_tensorboard_keeps_every_point_and_text_of_a_long_run(tmp_path: Path) -> None:
    (kept,) = re.findall(r"--samples_per_plugin (\S+)", commands("tensorboard", tmp_path))
    samples = dict(pair.split("=") for pair in kept.split(","))
    assert all(int(samples[plugin]) >= 25_000 for plugin in ("scalars", "text"))
