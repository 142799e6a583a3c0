"""What is said, whoever listens: no reader, no stream and no encoding ends what a program is doing."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning.console import Console, open_fault_tolerant_stream, say
from running.commands.train import train
from running.sweeps.multirun import Multirun
from tests.conftest import ROOT

GUARDED = """
import sys
from gpt_lightning.console import Console, guard_streams, say
guard_streams()
for n in range(2000):
    say(f"── {n} é")
    Console().print(f"── {n} é")
    print(f"── {n} é")
    say("a sentence", error=True)
sys.stdout.flush()
kept = open(sys.argv[1], "w")
assert kept.fileno() > 2
kept.write(sys.stdin.readline() or "to the end")
kept.close()
"""


def gone() -> io.TextIOWrapper:
    """A stream whose reader has gone, as Python opens one."""
    reading, writing = os.pipe()
    os.close(reading)
    return io.TextIOWrapper(io.FileIO(writing, "w"), encoding="utf-8")


def close(stream: Any) -> None:
    """Here, where what it could not write raises nothing."""
    if stream is not None:
        with suppress(BrokenPipeError):
            stream.close()


def ascii_only() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


STREAMS: dict[str, Callable[[], Any]] = {"no stream": lambda: None, "no reader": gone, "ascii": ascii_only}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_training_ends_as_it_would(
    stream: str, monkeypatch: pytest.MonkeyPatch, tiny_config: Callable[..., dict[str, Any]]
) -> None:
    config = tiny_config("max_steps=4", "callbacks.samples.every=2", "val_every=4")
    monkeypatch.setattr(sys, "stdout", STREAMS[stream]())
    assert "val/loss/mean" in train(config)
    assert train(config)  # "nothing to do"
    (log,) = Path(config["run_dir"]).glob("training_*.log")
    assert "── samples at step 2" in log.read_text(encoding="utf-8")
    close(sys.stdout)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_sweep_ends_as_it_would(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", STREAMS[stream]())
    multirun = Multirun()
    job = multirun.run([sys.executable, "-c", "raise SystemExit(0)"], "name=é", number=1)
    multirun.end()
    assert job.code == 0
    close(sys.stdout)


@pytest.mark.parametrize(
    "closed", ["", ">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "| head -n 1", "| true"]
)
def test_a_program_goes_on_to_its_end(tmp_path: Path, closed: str) -> None:
    command = f'"$0" -c "$1" "$2" {closed}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, GUARDED, str(tmp_path / "kept")],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept").read_text() == "to the end"


def test_each_command_is_guarded() -> None:
    command = '"$0" train.py --cfg job | true; exit ${PIPESTATUS[0]}'
    done = subprocess.run(["bash", "-c", command, sys.executable], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        (">/dev/full", 1, b"error: the output could not be written completely: No space left on device.\n"),
        ("| true", 0, b""),
    ],
)
def test_what_is_called_for_what_it_prints_fails_where_that_is_lost(
    tiny_overrides: list[str], to: str, code: int, said: bytes
) -> None:
    command = f'"$0" plan.py "$@" {to}; exit ${{PIPESTATUS[0]}}'
    args = ["bash", "-c", command, sys.executable, *tiny_overrides]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_full_pipe_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    reader = subprocess.Popen(["wc", "-c"], stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    stream = open_fault_tolerant_stream(writing, encoding="utf-8")
    stream.write("x" * 1_000_000)
    stream.flush()
    os.close(writing)
    assert reader.communicate()[0].split() == [b"1000000"]


def test_what_an_encoding_lacks_is_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ascii_only()
    monkeypatch.setattr(sys, "stdout", stream)
    say("é → 🙂")
    Console(soft_wrap=True).print("é → 🙂")
    stream.seek(0)
    assert stream.read().splitlines() == ["\\xe9 \\u2192 \\U0001f642"] * 2
