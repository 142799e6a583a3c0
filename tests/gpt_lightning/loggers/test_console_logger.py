"""What is shown where: a bar to a person at a terminal, plain lines to a pipe, and nothing that a model wrote acts on either."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger, escape_control_characters
from tests.conftest import ROOT

SHOWN = """
import sys
from pathlib import Path
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger
terminal = ConsoleLogger(Path(sys.argv[1]))
terminal.start_progress(done=3, total=9)
terminal.note("step 3 | loss 3.1", style="bold red")
terminal.say_in_progress("validating after step")
terminal.samples(3, [("once", "\\x1b[2J\\x07up\\rover\\x9b1mit all\\nthe end")])
terminal.stop_progress()
"""
LINES = [
    "step 3 | loss 3.1",
    "── samples at step 3 ".ljust(60, "─"),
    "once → ␛[2J␇up␍over\\x9b1mit all",
    "    the end",
    "─" * 60,
]


def shown(folder: Path, *, stdout: int, **environment: str) -> bytes:
    command = [sys.executable, "-c", SHOWN, str(folder / "training.log")]
    variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")}
    variables |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    return subprocess.run(command, check=True, cwd=folder, env=variables, stdout=stdout).stdout or b""


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}])
def test_a_pipe_gets_plain_lines(tmp_path: Path, environment: dict[str, str]) -> None:
    assert shown(tmp_path, stdout=subprocess.PIPE, **environment).decode().splitlines() == LINES
    log = (tmp_path / "training.log").read_text().splitlines()
    assert [line.partition("] ")[2] or line for line in log] == LINES


def test_a_terminal_gets_a_bar_that_says_what_is_done(tmp_path: Path) -> None:
    reading, writing = pty.openpty()
    shown(tmp_path, stdout=writing)
    os.close(writing)
    text = b""
    while piece := _read(reading):
        text += piece
    os.close(reading)
    said = text.decode()
    assert "━" in said
    assert "3/9" in said
    assert "validating after step" in said
    assert all(line in said for line in LINES)
    assert not any(sign in said for sign in ("\x1b[2J", "\x07", "\x9b"))


def _read(descriptor: int) -> bytes:
    """What has come; nothing more where the other end is closed."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def test_a_notebook_gets_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As rich knows one."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    terminal = ConsoleLogger(tmp_path / "training.log")
    terminal.start_progress(done=3, total=9)
    terminal.note("step 3 | loss 3.1")
    assert capsys.readouterr().out == "step 3 | loss 3.1\n"


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    seen = escape_control_characters(text)
    assert not [sign for sign in seen if (ord(sign) < 32 or 127 <= ord(sign) < 160) and sign not in "\t\n"]
    assert len(seen.split("\n")) == len(text.split("\n"))
    assert escape_control_characters(seen) == seen
