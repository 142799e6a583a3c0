"""The README tells the truth: its commands compose, its tree exists, its words are the code's."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from gpt_lightning.model import GPT, GPTConfig
from running.config.command_line import check_command_line
from running.config.command_line_quoting import quote_text_settings
from running.config.compose import compose_config
from running.config.run_config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = "".join(
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        *("corpora", "curriculum", "distributed", "evaluation", "hardware", "mix_laws", "recipes", "study", "sweeps"),
        *("recipe_gpt2_5", "recipe_mixed_curriculum", "recipe_rangeflow"),
    )
)
BLOCKS = re.findall(r"```\w*\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for text in [
            *BLOCKS,
            *re.findall(r"```\w*\n(.*?)```", GUIDES.replace("\\\n", ""), flags=re.DOTALL),
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
    settings = quote_text_settings(arguments)
    check_command_line(Path(script).stem, settings)
    if script in ("train.py", "plan.py"):
        first = settings[0] == "-m"
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


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)(.+?)\)", README):
        assert (ROOT / target).exists(), target


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
