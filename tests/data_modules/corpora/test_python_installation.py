"""The corpora that every machine has are the same whatever the process has imported."""

import sys
from pathlib import Path

import pytest

from data_modules import corpora


def test_copies_that_a_package_brings_along_are_no_installed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """setuptools adds its folder `_vendor` to the path when it is imported."""
    before = list(corpora.readmes())
    copies = tmp_path / "setuptools" / "_vendor"
    distribution = copies / "aaa-1.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: aaa\nVersion: 1.0\n\n" + "A description. " * 20
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(copies)])
    assert list(corpora.readmes()) == before
    monkeypatch.setattr(sys, "path", [*sys.path, str(copies.rename(tmp_path / "installed"))])
    assert len(list(corpora.readmes())) == len(before) + 1
