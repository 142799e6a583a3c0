"""A run whose weights are cut up among its ranks is the run it would have been."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning import load_model
from gpt_lightning.checkpoint_folder import checkpoint_path
from gpt_lightning.convert import to_hf
from gpt_lightning.sharding import ShardedStrategy
from running.commands.train import train
from running.config.compose import compose_config
from running.config.run_config import RunConfig
from running.training.check_settings import check_settings
from tests.conftest import TINY, start
from tests.run_files import (
    WITH_DIET,
    as_if_killed,
    assert_same_rows,
    assert_same_state,
    diet,
    final_checkpoint,
    final_weights,
    metrics,
    saved_steps,
)
from tests.training_starts import by_srun, by_torchrun

GLOBAL_BATCH = 8
RUN = [
    *TINY,
    "name=run",
    "tokenizer.model_vocab_size=515",  # no two ranks have as many rows
    "model.d_ff=63",
    "model.dropout=0",  # its random numbers follow the way the global batch is cut
    "gradient_clip=0.3",  # below the norms, above those of half the weights
    "trainer.precision=32-true",
    "trainer.accelerator=cpu",
    "val_every=5",
    "callbacks.checkpoints.every=5",
    WITH_DIET,
]


def overrides(data_dir: Path, runs: Path, *more: str) -> list[str]:
    return [*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more]


def train_alone(data_dir: Path, runs: Path) -> None:
    train(compose_config("train", overrides(data_dir, runs)))


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On one rank, in one go: 12 steps, with checkpoints of 5, 10 and 12."""
    runs = tmp_path_factory.mktemp("alone")
    train_alone(tiny_data, runs)
    return runs / "run"


@pytest.fixture(scope="module")
def sharded(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On two ranks, in one go."""
    runs = tmp_path_factory.mktemp("sharded")
    answer = start(overrides(tiny_data, runs, "trainer=fsdp"))
    assert answer.returncode == 0, answer.stderr
    assert "Warning" not in answer.stderr
    return runs / "run"


def assert_same_run(ours: Path, theirs: Path, *, after: int = 0) -> None:
    """The same rows, sequences, samples and checkpoints; losses, gradient norms and weights but for rounding.

    Args:
        after: the step after which both have a diet.
    """
    assert diet(ours, after=after * GLOBAL_BATCH) == diet(theirs, after=after * GLOBAL_BATCH)
    assert_same_rows(metrics(ours), metrics(theirs), rel=1e-5)
    assert (ours / "samples.jsonl").read_text() == (theirs / "samples.jsonl").read_text()
    assert saved_steps(ours) == saved_steps(theirs) == [5, 10, 12]
    for name, weight in final_weights(ours).items():
        torch.testing.assert_close(final_weights(theirs)[name], weight, atol=1e-5, rtol=1e-4)
    assert final_checkpoint(ours)["ledger"] == final_checkpoint(theirs)["ledger"]


def test_it_is_the_run_of_one_rank(alone: Path, sharded: Path) -> None:
    assert len(diet(sharded)) == 12 * GLOBAL_BATCH
    assert all(row["train/grad_norm"] > 0.3 for row in metrics(sharded) if "train/grad_norm" in row)
    assert_same_run(sharded, alone)


def test_its_checkpoint_is_that_of_one_rank(alone: Path, sharded: Path) -> None:
    """The same names, numbers of parameters, shapes and dtypes; the moments but for rounding; one file of about one size."""
    ours, theirs = final_checkpoint(sharded), final_checkpoint(alone)
    assert list(ours) == list(theirs)
    assert list(ours["state_dict"]) == list(theirs["state_dict"])
    (our_optimizer,), (their_optimizer,) = ours["optimizer_states"], theirs["optimizer_states"]
    assert our_optimizer["param_groups"] == their_optimizer["param_groups"]
    assert list(our_optimizer["state"]) == list(their_optimizer["state"])
    for number, state in our_optimizer["state"].items():
        for key, value in state.items():
            assert type(value) is torch.Tensor
            torch.testing.assert_close(value, their_optimizer["state"][number][key], atol=1e-7, rtol=1e-3)
    sizes = [checkpoint_path(run / "checkpoints", 12).stat().st_size for run in (sharded, alone)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
    assert sorted(path.name for path in (sharded / "checkpoints").iterdir() if path.is_file()) == sorted(
        f"step_{step:08d}.{suffix}" for step in (5, 10, 12) for suffix in ("json", "pt")
    )


def test_its_checkpoint_is_a_model_for_everybody(sharded: Path, tmp_path: Path) -> None:
    model = load_model(sharded)
    weights = final_weights(sharded)
    assert all(torch.equal(value, weights[f"model.{name}"]) for name, value in model.state_dict().items())
    to_hf(model, tmp_path / "exported", format="llama")
    assert (tmp_path / "exported" / "model.safetensors").is_file()


def test_it_goes_on_alone_and_sharded_again(alone: Path, sharded: Path, tiny_data: Path, tmp_path: Path) -> None:
    """From two ranks to one, and after ten steps back to two, on which srun starts it."""
    first, second = tmp_path / "first", tmp_path / "second"
    run = as_if_killed(sharded, first, after=5)
    train_alone(tiny_data, first)
    assert_same_run(run, alone, after=5)
    again = as_if_killed(run, second, after=10)
    command = overrides(tiny_data, second, "trainer=fsdp")
    for answer in by_srun(command, command):
        assert answer.returncode == 0, answer.stderr
    assert_same_run(again, alone, after=10)


def test_killed_it_goes_on_with_the_same_bits(sharded: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(sharded, tmp_path, after=5)
    answer = by_torchrun(overrides(tiny_data, tmp_path, "trainer=fsdp"))
    assert answer.returncode == 0, answer.stderr
    assert_same_state(final_checkpoint(run), final_checkpoint(sharded))
    assert metrics(run) == metrics(sharded)
    assert diet(run) == diet(sharded, after=5 * GLOBAL_BATCH)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_so_is_one_of_muon_in_bf16_with_compiled_blocks(tiny_data: Path, tmp_path: Path) -> None:
    """But for rounding in bf16. After five steps it goes on alone, from the checkpoint of two ranks."""
    more = ["trainer.precision=bf16-mixed", "optimizer=muon", "schedule.warmup_steps=2"]
    runs = [tmp_path / name for name in ("alone", "sharded", "continued")]
    train(compose_config("train", overrides(tiny_data, runs[0], *more)))
    answer = start(overrides(tiny_data, runs[1], *more, "trainer=fsdp", "trainer.compile=true"))
    assert answer.returncode == 0, answer.stderr
    alone, sharded = runs[0] / "run", runs[1] / "run"
    continued = as_if_killed(sharded, runs[2], after=5)
    train(compose_config("train", overrides(tiny_data, runs[2], *more)))
    for run in (sharded, continued):
        assert_same_rows(metrics(run), metrics(alone), rel=1e-3)
        for name, weight in final_weights(alone).items():
            torch.testing.assert_close(final_weights(run)[name], weight, atol=5e-4, rtol=2**-8)


def test_what_does_not_go_with_sharded_weights_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    for more, message in (
        (
            ["trainer.precision=16-mixed"],
            r"trainer\.precision is 16-mixed, whose gradient scaler does not support sharded",
        ),
        (
            ["optimizer=adamw_8bit"],
            r"bitsandbytes\.optim\.AdamW8bit does not support sharded weights: set optimizer=adamw",
        ),
    ):
        config = compose_config("train", overrides(tiny_data, tmp_path, "trainer=fsdp", *more))
        with pytest.raises(ValueError, match=message):
            check_settings(RunConfig.of(config), "cpu")


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_only_what_verifies_and_runs_no_code_is_read(sharded: Path, tmp_path: Path) -> None:
    """Lightning's own strategy reads a file past the CheckpointIO."""
    strategy = ShardedStrategy(n_ranks=2, timeout=None)
    run = as_if_killed(sharded, tmp_path, after=12)
    path = checkpoint_path(run / "checkpoints", 12)
    assert strategy.load_checkpoint(path)["global_step"] == 12
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not match its manifest"):
        strategy.load_checkpoint(path)
    with pytest.raises(ValueError, match="could execute code"):
        strategy.load_checkpoint(_malicious(tmp_path))
    assert not (tmp_path / "mark").exists()


def _malicious(folder: Path) -> Path:
    """A checkpoint that agrees with its manifest and would run code."""
    path = folder / "step_00000001.pt"
    torch.save({"global_step": 1, "evil": Evil(folder / "mark")}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {"file": path.name, "sha256": sha256, "size": path.stat().st_size, "step": 1}
    path.with_suffix(".json").write_text(json.dumps(manifest))
    return path
