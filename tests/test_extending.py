"""The example of docs/howto/own_parts.md: parts of the user's own train, are planned, generate, and define the run."""

import json
import re
import sys
from pathlib import Path

import pytest

from running.config.own_imports import check_imports
from running.config.run_config import RunConfig
from tests.conftest import ROOT, TINY, start, start_verb

PAGE = (ROOT / "docs" / "howto" / "own_parts.md").read_text(encoding="utf-8")
(MODULE,) = [block for block in re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL) if "register_norm(" in block]
PARTS = ["model.norm=scale", "model.feed_forward=gated", "model.position=table", "model.attention=written_out"]
OTHERS = ["schedule.shape=squared", "optimizer._target_=my_parts.Lion", "~optimizer.eps", "~optimizer.fused"]
NAMED = "+imports=[my_parts]"


@pytest.fixture
def overrides(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "my_parts.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    constant = ["curriculum=constant", "curriculum.mixes.base={stdlib:1}", "max_steps=4", "val_every=4"]
    return [*TINY, *constant, "name=mine", f"data_dir={tiny_data}", f"runs_dir={tmp_path / 'runs'}"]


def test_the_example_trains_and_generates_and_defines_its_run(overrides: list[str], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    done = start([*overrides, NAMED, *PARTS, *OTHERS])
    assert done.returncode == 0, done.stderr
    assert "imports:\n- my_parts\n" in (run / "config.yaml").read_text()
    digest = json.loads((run / "environment.json").read_text())["imports"]["my_parts"]
    assert re.fullmatch("[0-9a-f]{12}", digest)
    said = start_verb("generate.py", [f"run={run}", "prompt=class", "max_new_tokens=3", NAMED])
    assert said.returncode == 0, said.stderr
    assert "must be one of" in start_verb("generate.py", [f"run={run}", "prompt=class"]).stderr
    longer = [*overrides, *PARTS, *OTHERS, "max_steps=6"]
    (tmp_path / "my_parts.py").write_text(MODULE + "\n# another version\n")
    again = start([*longer, NAMED])
    assert again.returncode == 0, again.stderr
    assert (
        f"imports.my_parts={json.loads((run / 'environment.json').read_text())['imports']['my_parts']}" in again.stdout
    )
    assert f"was {digest}" in again.stdout


def test_a_run_is_planned_with_its_own_parts(overrides: list[str], tmp_path: Path) -> None:
    planned = start_verb("plan.py", [*overrides, NAMED, *PARTS, *OTHERS, "plan.device=cpu"])
    assert planned.returncode == 0, planned.stderr
    trained = start([*overrides, NAMED, *PARTS, *OTHERS])
    parameters = json.loads((tmp_path / "runs" / "mine" / "plan.json").read_text())["parameters"]
    assert f"{parameters:,} parameters" in trained.stdout


def test_a_run_is_not_resumed_without_the_module_that_defines_it(overrides: list[str]) -> None:
    assert start([*overrides, NAMED]).returncode == 0
    refused = start([*overrides, "max_steps=6"])
    assert "was begun with imports=['my_parts'], and now it is None" in refused.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["+imports=[no_such_module]"], "imports: no_such_module cannot be imported (ModuleNotFoundError:"),
        (["+imports=my_parts"], "imports is 'my_parts': it must be a list of modules, such as +imports=[my_package]."),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(overrides: list[str], settings: list[str], sentence: str) -> None:
    refused = start([*overrides, *settings])
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {sentence}")
    assert len(refused.stderr.splitlines()) == 1


def test_a_config_file_names_no_module() -> None:
    assert "json.tool" not in sys.modules
    with pytest.raises(ValueError, match=r"a config file may not name a module\. Type \+imports=\[json\.tool\]"):
        check_imports({"imports": ["json.tool"]})
    with pytest.raises(ValueError, match="a config file may not name a module"):
        RunConfig.of({"imports": ["json.tool"], "name": "x", "run_dir": "x"})
    assert "json.tool" not in sys.modules
