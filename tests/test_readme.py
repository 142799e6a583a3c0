"""README and docs tell the truth: commands compose, links lead somewhere, the tree exists, the words are the code's."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from documentation.settings_pages import COMMANDS as SETTINGS_OF_COMMANDS
from documentation.settings_pages import GROUPS, command_page, group_page
from gpt_lightning.model import GPT, GPTConfig
from running.config.command_help import list_settings, written_settings
from running.config.command_line_check import check_command_line
from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings
from running.config.run_config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATED = ROOT / "docs" / "reference" / "settings"
PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if GENERATED not in path.parents]
GUIDES = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
BLOCKS = re.findall(r"```\w*\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for text in [
            *BLOCKS,
            *re.findall(r"```\w*\n(.*?)```", re.sub(r" *\\\n *", " ", GUIDES), flags=re.DOTALL),
            *re.findall(r"`(python .*?)`", README + GUIDES),
        ]
        for line in text.splitlines()
    }
)


# "python *" begins a line of plan.py's table: the source of that name
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python ") and not c.startswith("python *")])
def test_a_command_composes(command: str) -> None:
    _, script, *arguments = shlex.split(command)
    if script == "-m":
        assert importlib.util.find_spec(arguments[0])
        return
    assert (ROOT / script).is_file()
    if "--config-dir" in arguments:  # a folder that another command writes: tests/test_mix_law.py trains with one
        return
    arguments = [a for a in arguments if a not in ("--help", "--cfg", "job")]
    settings = quote_text_settings(arguments)
    check_command_line(Path(script).stem, settings)
    # tests/test_extending.py trains with such modules
    has_own_modules = any(setting.startswith("+imports=") for setting in settings)
    if script in ("train.py", "plan.py") and not has_own_modules:
        first = settings[:1] == ["-m"]
        one_job = [re.sub(r"=tag\(.*", "=1", o).split(",")[0] for o in settings[1:]] if first else settings
        config = compose_config(Path(script).stem, one_job)
        assert RunConfig.of(config).accumulation_steps > 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(("torchrun ", "srun "))])
def test_a_command_of_several_machines_composes(command: str) -> None:
    before, after = command.split("train.py ")
    overrides = quote_text_settings(shlex.split(after))
    check_command_line("train", overrides)
    config = compose_config("train", overrides)
    assert RunConfig.of(config).accumulation_steps > 0
    assert before.split()[0] == "srun" or f"--nproc-per-node={config['trainer']['devices']}" in before


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_a_make_target_exists(command: str) -> None:
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as the site and code hosts spell them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), re.M
    )
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)(.+?)\)", text):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200
    assert len(README.split()) <= 1500
    assert "not measured" not in re.sub(r"## What is not measured.*?\n## ", "", README, flags=re.DOTALL)
    tables = re.findall(r"^\| ---", README, flags=re.MULTILINE)
    assert len(tables) + README.count("![") <= 5


def _pages_of(nav: list[dict[str, Any]]) -> list[str]:
    entries = [entry for part in nav for entry in part.values()]
    return [page for entry in entries for page in (_pages_of(entry) if isinstance(entry, list) else [entry])]


def test_the_site_has_every_page_and_every_group_of_settings() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = _pages_of(site["nav"])
    written = {str(page.relative_to(ROOT / "docs")) for page in PAGES}
    generated = {f"reference/settings/{name}.md" for name in (*SETTINGS_OF_COMMANDS, *GROUPS)}
    assert len(listed) == len(set(listed))
    assert set(listed) == written | generated


def test_the_reference_has_every_setting() -> None:
    for command in SETTINGS_OF_COMMANDS:
        assert all(f"| `{setting.key}` |" in command_page(command) for setting in list_settings(command))
    for group in GROUPS:
        page = group_page(group)
        for path in (ROOT / "conf" / group).rglob("*.yaml"):
            choice = path.relative_to(ROOT / "conf" / group).with_suffix("").as_posix()
            assert f"# {choice}\n" in page
            keys = [setting.key for setting in written_settings(f"{group}/{choice}")]
            assert all(re.search(rf"`[\w.@]*{re.escape(key)}` \|", page) for key in keys)


def test_the_experiment_of_the_docs_composes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (text,) = [text for text in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL) if "_global_" in text]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "small_web.yaml").write_text(text)
    train = [sys.executable, "train.py", "--config-dir", str(tmp_path), "experiment=small_web", "--cfg", "job"]
    done = subprocess.run(train, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["curriculum"]["mixes"] == {"base": {"fineweb_edu": 1.0}}


def test_the_tree_exists() -> None:
    tree = next(block for block in BLOCKS if block.startswith("train.py"))
    folder = ""
    for line in tree.splitlines():
        names = re.match(r"( *)([\w./ ]+?)(?:  |$)", line)
        assert names, line
        if names[1]:
            entries = [folder + name for name in names[2].split()]
        else:
            entries = names[2].split()
            folder = entries[0] if entries[0].endswith("/") else ""
        for entry in entries:
            assert entry == "runs/" or (ROOT / entry).exists(), entry


def test_the_size_of_the_quickstart_model_is_as_stated() -> None:
    (millions,) = re.findall(r"a model of ([\d.]+) million parameters", README)
    config = compose_config("train", ["experiment=quickstart"])
    assert f"{GPT(GPTConfig(**config['model'])).n_parameters() / 1e6:.1f}" == millions
