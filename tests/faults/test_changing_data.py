"""Data that changes while it is trained on, or between two starts: nothing of it gets into a checkpoint unseen."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_modules.shards.shard_integrity import DataChangedError
from gpt_lightning.lit_gpt import LitGPT
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import TINY
from tests.faults.bit_equality import assert_equal
from tests.faults.disturbed_runs import ACCUMULATION, Run
from tests.run_files import as_if_killed, saved_steps

Runs = Callable[..., Run]
Config = Callable[..., dict[str, Any]]
SHARD = "bpe_512/stdlib/train/tokens_0000.npy"


def overwritten(path: Path) -> None:
    """In place, at equal size."""
    with path.open("r+b") as file:
        file.seek(200)
        file.write(bytes(64))


def replaced(path: Path) -> None:
    """By another file of equal size, as rsync and editors do it; the time of its last change is the same."""
    before = path.stat()
    other = path.with_suffix(".other")
    shutil.copyfile(path, other)
    overwritten(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def touched(path: Path) -> None:
    """Written anew with the same content."""
    path.write_bytes(path.read_bytes())


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Config:
    settings = [*TINY, f"data_dir={data}", f"runs_dir={tmp_path / 'runs'}", "name=run", "data.verify=false"]
    return lambda *more: compose_config("train", [*settings, *more])


def change_at(monkeypatch: pytest.MonkeyPatch, micro_batch: int, change: Callable[[Path], object], path: Path) -> None:
    training_step = LitGPT.training_step

    def changing(lit: LitGPT, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == micro_batch:
            change(path)
        return training_step(lit, batch, batch_idx)

    monkeypatch.setattr(LitGPT, "training_step", changing)


@pytest.mark.parametrize("change", [overwritten, replaced, Path.unlink])
def test_data_that_changes_ends_the_run_before_it_is_saved(
    change: Callable[[Path], object], config: Config, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        change_at(once, 9, change, data / SHARD)
        with pytest.raises(DataChangedError, match=f"data changed during training: .*{SHARD} ") as changed:
            train(config())
    assert changed.value.exit_code == 66
    assert saved_steps(tmp_path / "runs" / "run") == [4]


def test_data_that_is_written_anew_with_the_same_content_changes_nothing(
    config: Config, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_at(monkeypatch, 9, touched, data / SHARD)
    train(config())
    assert saved_steps(tmp_path / "runs" / "run") == [4, 8, 12]


def test_a_corpus_that_was_replaced_since_a_kill_is_refused(config: Config, data: Path, tmp_path: Path) -> None:
    """Whatever data.verify says; moved to another place it is the same."""
    train(config())
    killed = as_if_killed(tmp_path / "runs" / "run", tmp_path / "killed", after=8)
    replaced(data / SHARD)
    with pytest.raises(
        ValueError,
        match=f"changed since the run was started, so it would train on two different corpora: .*{SHARD} differs .* new run",
    ):
        train(config(f"runs_dir={killed.parent}"))
    assert saved_steps(killed) == [4, 8]


def test_a_corpus_that_was_moved_goes_on(config: Config, data: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(config())
    killed = as_if_killed(tmp_path / "runs" / "run", tmp_path / "killed", after=8)
    moved = shutil.copytree(tiny_data, tmp_path / "moved")
    shutil.rmtree(data)
    train(config(f"runs_dir={killed.parent}", f"data_dir={moved}"))
    assert saved_steps(killed) == [4, 8, 12]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_that_are_cut_off_end_the_run_with_a_sentence(
    new_run: Runs, straight: Runs, data: Path, tiny_data: Path, workers: int
) -> None:
    run = new_run(f"data_dir={data}", f"data.workers={workers}")
    life = run.live(faults=[("cut_off", {"folder": str(data), "micro_batch": 7 * ACCUMULATION + 1})])
    assert life.codes == [66], life.output[-4000:]
    said = life.output.splitlines()[-1]
    assert f"{data}/bpe_512/" in said
    assert "restore the file" in said.lower()
    assert "Traceback" not in life.output
    shutil.rmtree(data)
    shutil.copytree(tiny_data, data)
    run.finish()
    assert_equal(run, straight())
