"""Texts that are not ours: samples, names of files and of runs, answers. None reaches a terminal, a log or a page as it is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.table import Table
from rich.text import Text

import command_runner
import train
from analysis.run_page import write_samples_markdown
from analysis.standalone_html import write_html_page
from gpt_lightning.console import Console, say
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics
from gpt_lightning.loggers.tensorboard import TensorBoard
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger
from mix_laws.curriculum_yaml import write_constant_mix
from running.sweeps.multirun import Multirun
from running.training import rank_processes
from tests.conftest import ROOT

CONTROL = [chr(n) for n in (*range(32), *range(127, 160)) if chr(n) not in "\t\n"]
HOSTILE = f"before{''.join(CONTROL)}\x1b[2J\x1b]0;title\x07after"


def in_page(path: Path) -> None:
    write_html_page(path, title=HOSTILE, body=f"<p>{HOSTILE}</p>", style="", data={"names": {HOSTILE: [HOSTILE]}})


def in_log(path: Path) -> None:
    ConsoleLogger(path).samples(1, [(HOSTILE, HOSTILE)])


def in_samples(path: Path) -> None:
    run: Any = type("Run", (), {"path": Path(HOSTILE), "responses": {HOSTILE: [(1, HOSTILE)]}})
    write_samples_markdown(run, path)


def in_curriculum(path: Path) -> None:
    write_constant_mix(path.parent, path.stem, {"c4": 1.0}, remarks=[HOSTILE], max_epochs=None).rename(path)
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["unit"] == "fraction"


@pytest.mark.parametrize("write", [in_page, in_log, in_samples, in_curriculum])
def test_no_control_character_is_written(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "written")
    written = (tmp_path / "written").read_text(encoding="utf-8")
    assert "␛[2J" in written or "\\u241b[2J" in written
    assert not set(CONTROL) & set(written)


def test_tensorboard_gets_none(tmp_path: Path) -> None:
    board = TensorBoard(
        tmp_path,
        terminal=ConsoleLogger(tmp_path / "log"),
        metrics_file=JsonlMetrics(tmp_path / "metrics.jsonl"),
        name="",
        version="",
        default_hp_metric=False,
    )
    board.add_run({"name": HOSTILE}, curves={})
    board.finalize("success")
    (written,) = (path.read_bytes() for path in tmp_path.rglob("*.hparams"))
    assert "␛[2J".encode() in written
    assert b"\x1b[2J" not in written


def as_table() -> None:
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    Console(width=400).print(table)


SAID: dict[str, Callable[[], object]] = {
    "a line": lambda: say(HOSTILE),
    "an error": lambda: say(HOSTILE, error=True),
    "a string": lambda: Console(soft_wrap=True).print(HOSTILE),
    "a text": lambda: Console(soft_wrap=True).print(Text(HOSTILE, style="bold")),
    "a table": as_table,
    "a job": lambda: Multirun().over(HOSTILE, number=1, run=Path()),
}


@pytest.mark.parametrize("what", SAID)
def test_no_control_character_is_printed(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    SAID[what]()
    said = "".join(capfd.readouterr())
    assert "␛[2J" in said
    assert not set(CONTROL) & set(said)


def test_markup_and_emoji_names_are_shown_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    Console(soft_wrap=True).print("runs/[/red] [bold]a:warning:")
    assert capfd.readouterr().out == "runs/[/red] [bold]a:warning:\n"


def test_an_error_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", HOSTILE])
    with pytest.raises(SystemExit) as refused:
        command_runner.run_command_line(train.main, "train")
    with pytest.raises(SystemExit) as left:
        rank_processes.exit_rank(f"error: {HOSTILE}")
    for end in (refused, left):
        assert "␛[2J" in str(end.value.code)
        assert not set(CONTROL) & set(str(end.value.code))


def test_a_traceback_has_none() -> None:
    script = "from gpt_lightning.console import guard_streams; guard_streams(); raise RuntimeError('\\x1b[2J')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: ␛[2J" in done.stderr
    assert "\x1b" not in done.stderr
