"""The commands of the Start page and of the tutorials, run in order and in small: fewer steps, less data, smaller models.

Everything else is run as it is written there. `NOT_RUN` lists what needs a GPU, a download or a program that waits.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings
from tests.conftest import ROOT
from tests.training_starts import ended_by

NOT_RUN = {
    "make quickstart": "runs the four commands below it",
    "make tensorboard": "a server that runs until Ctrl-C",
    "python prepare.py source=smol_smoltalk tokenizer=gpt2_chatml": "needs the hub",
    "python train.py experiment=local name=chat_124m": "needs GPT-2's weights and a GPU",
}
"""How a command begins that is only composed (by tests/test_readme.py), and why."""
MODEL = {
    "model.max_seq_len": "64",
    "model.d_model": "32",
    "model.n_layers": "1",
    "model.n_heads": "2",
    "model.d_ff": "64",
    "data.val_sequences": "2",
    "callbacks.samples.max_new_tokens": "2",
}
SMALL: Mapping[str, Mapping[str, str]] = {
    "train.py": MODEL | {"max_steps": "12", "val_every": "6", "schedule.warmup_steps": "2"},
    "plan.py": MODEL,
    "verify.py": MODEL | {"max_steps": "12", "verify.steps": "4", "verify.workers": "0"},
    "prepare.py": {"workers": "1", "inspect.sequences": "1"},
    "evaluate.py": {"limit": "2"},
    "generate.py": {"max_new_tokens": "4"},
    "report.py": {},
    "convert.py": {},
}
"""Settings of each command in small. They replace what the page types, except a `max_steps` of 60 or less."""


def commands(page: str) -> list[str]:
    """The commands of a page's code blocks, in order."""
    text = re.sub(r" *\\\n *", " ", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [
        line.partition(" #")[0].strip() for language, block in blocks if not language for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith(("python ", "make ")) and not line.startswith(tuple(NOT_RUN))]


def in_small(command: str, **more: str) -> list[str]:
    """The script and its settings, with small values."""
    _, script, *typed = shlex.split(command)
    if "--help" in typed:
        return [script, *typed]
    keys = {setting.partition("=")[0]: setting for setting in typed}
    small = {**SMALL[script], **more}
    if script in ("train.py", "plan.py", "verify.py", "prepare.py") and "tokenizer.name" not in keys:
        small |= {"tokenizer.name": "bpe_512", "tokenizer.model_vocab_size": "512"}
    if int(keys.get("max_steps", "=1000").partition("=")[2]) <= 60 or script == "plan.py":
        small.pop("max_steps", None)
    kept = [setting for key, setting in keys.items() if key not in small]
    return [script, *kept, *(f"{key}={value}" for key, value in small.items())]


class Shell:
    """Runs the commands of a page in a folder that has the documentation, and prepared data if wanted."""

    def __init__(self, page: str, folder: Path, data: Path | None = None) -> None:
        self.folder = folder
        self.commands: Iterator[str] = iter(commands(page))
        (folder / "docs").symlink_to(ROOT / "docs")
        (folder / "README.md").symlink_to(ROOT / "README.md")
        if data:
            (folder / "data").symlink_to(data)

    def next(self, beginning: str, *, code: int = 0, typed: str = "", **more: str) -> str:
        """Run the next command, which begins so; return what it prints."""
        command = next(self.commands)
        assert command.startswith(beginning), command
        return self.run(command, code=code, typed=typed, **more)

    def run(self, command: str, *, code: int = 0, typed: str = "", **more: str) -> str:
        script, *settings = in_small(command, **more)
        if "mode=chat" in settings:
            typed = "Hello\n\n"
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *settings],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"{time.perf_counter() - began:.1f} s: {command}")
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def stop(self, command: str, *, after: int) -> str:
        """Run a training that gets SIGTERM before a step ends."""
        _, *settings = in_small(command)
        config = compose_config("train", quote_text_settings(settings))
        done = ended_by("SIGTERM", config, micro_batch=after - 1, folder=self.folder)
        assert done.returncode == 143, done.stderr
        return done.stdout + done.stderr

    def end(self) -> None:
        """No command is left."""
        assert list(self.commands) == []


def test_start(tiny_data: Path, tmp_path: Path) -> None:
    shell = Shell("start.md", tmp_path, tiny_data)
    small = {"source": "local", "path": "docs/*.md", "tokenizer.train_on": "[local]", "data_dir": "own_data"}
    assert "local: prepared in own_data/bpe_512/local" in shell.next("python prepare.py", **small)
    assert "% of the sequences in tenth" in shell.next("python plan.py")
    assert "done: 12 steps in runs/quickstart" in shell.next("python train.py experiment=quickstart")
    shell.next("python report.py")
    assert (tmp_path / "runs" / "quickstart" / "report" / "report.html").is_file()
    shell.next("python report.py run=runs/quickstart")
    assert "perplexity" in shell.next("python evaluate.py run=runs/quickstart")
    assert shell.next("python generate.py run=runs/quickstart prompt=").startswith("class ")
    shell.next("python generate.py run=runs/quickstart mode=chat")
    for name in ("warmer", "other_mix", "trial"):
        shell.next(f"python train.py name={name}")
    shell.end()


def test_own_text(tmp_path: Path) -> None:
    shell = Shell("tutorials/own_text.md", tmp_path)
    said = shell.next("python prepare.py source=local path='docs/**/*.md'")
    assert "local: prepared in data/mine/local" in said
    assert "val_fraction" in said
    shutil.rmtree(tmp_path / "data" / "mine" / "local")
    shell.next("python prepare.py source=local path='docs/**/*.md'")
    assert "sequences" in shell.next("python prepare.py")
    shell.next("python plan.py experiment=local")
    shell.next("python train.py experiment=local name=mine")
    shell.next("python generate.py run=runs/mine")
    shell.next("python evaluate.py run=runs/mine")
    shell.next("python evaluate.py run=runs/mine data=README.md")
    shell.next("python convert.py input=runs/mine")
    assert (tmp_path / "exported" / "mine" / "config.json").is_file()
    shell.end()


def test_sweep(tiny_data: Path, tmp_path: Path) -> None:
    shell = Shell("tutorials/sweep.md", tmp_path, tiny_data)
    said = shell.next(
        "python train.py -m experiment=quickstart name=rates", **{"optimizer.lr": "1e-3,3e-3", "seed": "1"}
    )
    assert "python report.py runs='runs/rates_sweep/*' compares them" in said
    shell.next("python report.py runs=runs/rates_sweep")
    assert (tmp_path / "runs" / "rates_sweep" / "comparison.html").is_file()
    shell.next(
        "python train.py -m experiment=quickstart",
        **{"curriculum.keyframes.settled.weights.pydoc": "0.1,0.3", "seed": "1"},
    )
    shell.next("python report.py runs=runs/quickstart_sweep")
    shell.end()


def test_curriculum(tiny_data: Path, tmp_path: Path) -> None:
    shell = Shell("tutorials/curriculum.md", tmp_path, tiny_data)
    # the little data of the tests would be read too often by 1,500 steps of the quickstart
    shell.next("python plan.py experiment=quickstart plan.device=cpu", max_steps="60")
    assert (tmp_path / "runs" / "quickstart" / "plan.png").is_file()
    said = shell.next("python plan.py experiment=quickstart plan.device=cpu max_steps=100000", code=1, max_steps="2000")
    assert re.search(
        r"^error: the plan is not feasible: curriculum\.max_epochs\.pydoc is 4, and the plan draws [\d.]+ epochs of it",
        said,
        flags=re.MULTILINE,
    )
    shell.next("python plan.py -m experiment=quickstart", max_steps="60", curriculum="constant,gradual_replay")
    shell.next("python train.py -m experiment=quickstart name=switch", curriculum="abrupt,gradual_replay")
    shell.next("python report.py runs=runs/switch_sweep")
    shell.next("python report.py run='runs/switch_sweep/curriculum=gradual_replay'")
    shell.end()


def test_resume(tiny_data: Path, tmp_path: Path) -> None:
    shell = Shell("tutorials/resume.md", tmp_path, tiny_data)
    short = next(shell.commands)
    assert "stopped by SIGTERM after step 41" in shell.stop(short, after=41)
    assert "continuing after step 41, from runs/short/checkpoints/step_00000041.pt" in shell.run(short)
    assert "runs/short is done: 60 steps, nothing to do." in shell.run(short)
    said = shell.next("python verify.py experiment=quickstart")
    assert re.search(r"other workers +the same 32 +bit-identical +bit-identical", said)
    shell.stop(next(shell.commands), after=41)
    said = shell.next("python train.py experiment=quickstart name=moved", micro_batch="4")
    assert "continuing after step 41" in said
    assert (tmp_path / "runs" / "moved" / "changes.jsonl").is_file()
    assert "continuing after step 41" in shell.next("python train.py experiment=quickstart name=short")
    said = shell.next("python train.py experiment=quickstart name=short", code=1)
    page = (ROOT / "docs" / "tutorials" / "resume.md").read_text(encoding="utf-8")
    assert said.splitlines()[-1] in page
    shell.end()


def test_chat(tiny_data: Path, tmp_path: Path) -> None:
    shell = Shell("tutorials/chat.md", tmp_path, tiny_data)
    shell.next("python train.py experiment=quickstart name=base")
    shell.next("python generate.py run=runs/base mode=chat")
    assert "perplexity/mean" in shell.next("python evaluate.py run=runs/base", tasks="[perplexity]")  # answers: below
    shell.next("python train.py experiment=quickstart name=chat init_from=runs/base")
    assert re.search(
        r"^ended +[\d.]+ +[\d.]+ to [\d.]+$", shell.next("python evaluate.py run=runs/chat"), flags=re.MULTILINE
    )
    shell.next("python generate.py run=runs/chat mode=chat")
    shell.end()


@pytest.mark.parametrize("beginning", [beginning for beginning in NOT_RUN if beginning.startswith("python")])
def test_what_is_not_run_is_in_a_tutorial(beginning: str) -> None:
    pages = [ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
    assert any(beginning in page.read_text(encoding="utf-8") for page in pages)
