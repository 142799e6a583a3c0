"""What keeps Triton from compiling is found before it tries."""

import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning.device_and_precision import check_compiler
from gpt_lightning.model.triton_check import why_triton_is_unavailable


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine with all that Triton needs: its folder of programs, which also holds Python.h."""
    for name in ("gcc", "Python.h"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    why_triton_is_unavailable.cache_clear()
    yield tmp_path
    why_triton_is_unavailable.cache_clear()


def test_a_complete_machine_has_no_obstacle(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_triton_is_unavailable("cuda") is None
    check_compiler("cuda")
    (complete / "gcc").rename(complete / "clang")
    why_triton_is_unavailable.cache_clear()
    assert why_triton_is_unavailable("cuda") is None
    monkeypatch.setenv("CC", str(complete / "clang"))
    why_triton_is_unavailable.cache_clear()
    assert why_triton_is_unavailable("cuda") is None


@pytest.mark.parametrize(
    ("lacks", "sentence"),
    [
        ("triton", "the package triton is missing: install it"),
        ("gcc", "a C compiler \\(gcc or clang\\): install one, or set the environment variable CC"),
        ("CC", "a C compiler \\(no_such_cc\\): install one"),
        ("Python.h", "Python.h\\): install them"),
        ("capability", r"needs compute capability 7\.0, and the device has 6\.1"),
    ],
)
def test_what_is_missing_is_named(complete: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, sentence: str) -> None:
    def nothing(*_: Any) -> None:
        return None

    if lacks == "triton":
        monkeypatch.setattr(importlib.util, "find_spec", nothing)
    elif lacks == "CC":
        monkeypatch.setenv("CC", "no_such_cc")  # Triton asks for no other one then
    elif lacks == "capability":
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    else:
        (complete / lacks).unlink()
    with pytest.raises(
        ValueError, match=rf"trainer\.compile=true needs Triton on CUDA, and .*{sentence}.*set trainer\.compile=false"
    ):
        check_compiler("cuda")


def test_triton_is_for_cuda() -> None:
    assert why_triton_is_unavailable("cpu") == "the device is cpu, not cuda"
