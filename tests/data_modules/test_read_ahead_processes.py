"""Processes that read ahead: they end with the run, and whatever becomes of them, the run does not wait for ever."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from callbacks import RunStopped
from data_modules import read_ahead_processes
from data_modules.mixed_data_module import MixedDataModule
from data_modules.read_ahead_processes import ReaderLostError
from gpt_lightning.lit_gpt import LitGPT
from running.commands.train import train
from tests.conftest import ROOT
from tests.data_modules.test_mixed_data_module import make_module, training_batches

Config = Callable[..., dict[str, Any]]
READ_AND_DIE = """
import os, signal, sys
from pathlib import Path
from data_modules import Curriculum, SampleOrder, SourceShards
from data_modules.read_ahead_processes import BatchPrefetcher
from data_modules.training_batches import RankSlice, TrainingBatches
if __name__ == "__main__":
    stream = SourceShards(Path(sys.argv[1])).train
    curriculum = Curriculum(keyframes={"all": {"at": 0, "weights": {"stdlib": 1}}}).resolve(steps=6, tokens_per_step=64)
    borders = stream.sequences(32, whole=True)
    order = SampleOrder(curriculum, sequences={"stdlib": len(borders) - 1}, global_batch=2, seed=5)
    batches = TrainingBatches(order, [stream], [borders], RankSlice(32, 2, rank=0, world_size=1, eot_id=None))
    ahead = BatchPrefetcher(batches, 2, told_to_stop=lambda: False, check_files=lambda: None)
    print(ahead[0].ids.shape, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def module(tiny_data: Path) -> Iterator[MixedDataModule]:
    module = make_module(tiny_data, workers=2)
    yield module
    module.teardown("fit")


def readers() -> list[psutil.Process]:
    """The processes that this one has started by multiprocessing, but for its own."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "multiprocessing.spawn" in " ".join(child.cmdline())]


def signal_a_reader(monkeypatch: pytest.MonkeyPatch, *numbers: int, micro_batch: int) -> None:
    """As a micro-batch begins, send a signal to each process that reads ahead, and the others to this one."""
    training_step = LitGPT.training_step

    def disturbed(lit: LitGPT, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == micro_batch:
            for reader in readers():
                reader.send_signal(numbers[0])
            for number in numbers[1:]:
                signal.raise_signal(number)
        return training_step(lit, batch, batch_idx)

    monkeypatch.setattr(LitGPT, "training_step", disturbed)


def test_readers_end_with_a_run_that_is_killed(tiny_data: Path, tmp_path: Path) -> None:
    """They hold its output open: whoever reads that would wait for ever."""
    script = tmp_path / "killed.py"
    script.write_text(READ_AND_DIE)
    command = [sys.executable, str(script), str(tiny_data / "bpe_512" / "stdlib")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "(2, 33)\n"), killed.stderr


def test_readers_share_no_memory(module: MixedDataModule) -> None:
    """So a full /dev/shm, which containers keep small, stops none of them."""
    training_batches(module, 3)
    assert len(readers()) == 2
    maps = [mapped.path for reader in readers() for mapped in reader.memory_maps()]
    assert [path for path in maps if path.startswith("/dev/shm")] == []


def test_readers_do_without_torch(module: MixedDataModule) -> None:
    training_batches(module, 3)
    maps = [mapped.path for reader in readers() for mapped in reader.memory_maps()]
    assert [path for path in maps if "torch" in path] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_killed_reader_is_said(module: MixedDataModule, number: signal.Signals) -> None:
    training_batches(module, 3)
    for reader in readers():
        reader.send_signal(number)
    assert module._read_ahead is not None
    with pytest.raises(ReaderLostError, match=rf"reads data ahead, was killed by {number.name}.*Run the same command"):
        [module._read_ahead[b] for b in range(3, 24)]
    assert ReaderLostError.exit_code == 75


def test_the_wait_for_a_reader_has_an_end(module: MixedDataModule, monkeypatch: pytest.MonkeyPatch) -> None:
    training_batches(module, 3)
    monkeypatch.setattr(read_ahead_processes, "_SILENCE", 0.0)
    for reader in readers():
        reader.suspend()
    assert module._read_ahead is not None
    with pytest.raises(ReaderLostError, match=r"has not answered for \d+ seconds: check the disk"):
        [module._read_ahead[b] for b in range(3, 24)]
    module.on_exception(ReaderLostError())
    assert readers() == []


def test_an_error_while_reading_is_the_runs(module: MixedDataModule) -> None:
    training_batches(module, 1)
    assert module._read_ahead is not None
    module._read_ahead._readers[1].child.connection.send("no number")
    with pytest.raises(TypeError, match="unsupported operand") as error:
        [module._read_ahead[b] for b in range(1, 24)]
    assert "data_modules/training_batches.py" in error.value.__notes__[0]


def test_a_run_whose_reader_is_killed_goes_on_at_the_next_start(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as once:
        signal_a_reader(once, signal.SIGKILL, micro_batch=11)
        with pytest.raises(ReaderLostError):
            train(tiny_config("name=run", "data.workers=2"))
    assert "reads data ahead, was killed by SIGKILL" in capsys.readouterr().out
    train(tiny_config("name=run", "data.workers=2"))
    assert "continuing after step 4" in capsys.readouterr().out
    assert readers() == []


def test_a_run_that_waits_for_a_reader_hears_sigterm(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(read_ahead_processes, "_SILENCE_AT_A_STOP", 0.0)
    signal_a_reader(monkeypatch, signal.SIGSTOP, signal.SIGTERM, micro_batch=41)  # six before the end of its step
    with pytest.raises(RunStopped, match=r"stopped by SIGTERM after step 5.*could not be saved") as stopped:
        train(tiny_config("name=run", "data.workers=2", "micro_batch=1"))
    assert stopped.value.exit_code == 143
    assert readers() == []
