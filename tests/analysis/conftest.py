"""What the tests of comparisons share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def alone(sweep: Path, tmp_path: Path) -> Path:
    """A copy of one run, to be damaged."""
    shutil.copytree(sweep / "a", tmp_path / "a", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return tmp_path / "a"
