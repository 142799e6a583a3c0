"""A session: prompts and commands, from a terminal or a pipe."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_lightning.console import escape_control_characters
from running.config.command_configs import GenerateConfig
from running.config.compose import compose_config
from running.config.settings_parser import parse
from running.evaluation import chat_repl
from running.evaluation.chat_repl import ReplSession
from running.evaluation.model_text_generator import ModelTextGenerator
from tests.conftest import ROOT


@pytest.fixture
def run(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy, which a test may change."""
    run = trained("max_steps=4", "val_every=4", "model.max_seq_len=64")
    return shutil.copytree(run, tmp_path / "runs" / "run")


def session_with(run: Path, mode: str) -> ReplSession:
    config = parse(GenerateConfig, compose_config("generate", [f"run={run}", f"mode={mode}"]))
    return ReplSession(ModelTextGenerator(config), chat=mode == "chat")


def piped(run: Path, lines: list[str], *settings: str) -> str:
    command = [sys.executable, "generate.py", f"run={run}", "max_new_tokens=6", *settings]
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_of_a_piped_chat(run: Path, tmp_path: Path) -> None:
    saved = tmp_path / "a conversation.jsonl"
    lines = ["Why?", "", "/set temperature 0", "/set top_k=x", "/set seed 1.5", "/set colour red", "And then?"]
    lines += [f"/save {saved}", f"/save {tmp_path}/no/x", "/reset", "/save x", "//usr is a folder", f"/save {saved}"]
    lines += ["/sing", "/help", "/exit", "Not asked"]
    said = piped(run, lines, "mode=chat")
    assert "\n> " not in said  # nobody is there to be prompted
    assert "temperature 0, top_k None" in said
    assert "error: top_k stays None: 'x' is not a number" in said
    assert "error: seed stays 0: seed is 1.5: it must be a whole number" in said
    assert "error: there is no setting 'colour': the settings are temperature, top_k," in said
    assert "error: there is no conversation to save yet." in said
    assert (
        f"error: {tmp_path}/no/x cannot be written: No such file or directory; the conversation is kept in memory."
        in said
    )
    assert "error: there is no command /sing: use /reset, /save, /set, /help or /exit." in said
    assert "Not asked" not in said
    first, second = (json.loads(line)["messages"] for line in saved.read_text(encoding="utf-8").splitlines())
    assert [(turn["role"], turn["content"]) for turn in first[::2]] == [("user", "Why?"), ("user", "And then?")]
    assert [turn["content"] for turn in second[::2]] == ["/usr is a folder"]
    assert all(
        escape_control_characters(turn["content"]) in said for turn in [*first, *second] if turn["role"] == "assistant"
    )


def test_a_saved_conversation_can_be_trained_on(run: Path, tmp_path: Path) -> None:
    from data_modules.corpora.record_fields import RecordFields

    session = session_with(run, "chat")
    session.write("Why?")
    session._take(f"/save {tmp_path / 'c.jsonl'}")
    (fields,) = re.findall("source=local .*", chat_repl._HELP)  # as /help says it
    config = compose_config("prepare", fields.replace("<file>", str(tmp_path / "c.jsonl")).split())
    document = RecordFields(config["sources"]["local"]["fields"]).document(
        json.loads((tmp_path / "c.jsonl").read_text())
    )
    assert document == session.conversation


def test_settings_change_what_is_written_and_nothing_else(run: Path) -> None:
    session = session_with(run, "text")
    first = session.write("def ")
    session._take("/set seed 5")
    other = session.write("def ")
    session._take("/set seed 0")
    assert session.write("def ") == first != other


def test_a_terminal_is_prompted_and_an_empty_line_ends_it(run: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "generate.py", f"run={run}", "max_new_tokens=4"]
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True) as process:
        os.close(theirs)
        said = b""
        until = time.monotonic() + 60
        while b"> " not in said and time.monotonic() < until:
            said += os.read(ours, 4096)
        os.write(ours, b"\n")
        assert process.wait(timeout=30) == 0
    assert b"An empty line or Ctrl-D ends the session" in said
    os.close(ours)
