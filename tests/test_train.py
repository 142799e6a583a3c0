"""Whole runs: repeated, killed and resumed, not mixed with others, swept."""

import json
import math
import re
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_modules import SourceShards
from gpt_lightning import load_model
from gpt_lightning.tokenizer import load_tokenizer
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import start
from tests.run_files import final_checkpoint, final_weights, untimed
from tests.training_starts import killed

ROOT = Path(__file__).resolve().parent.parent
Config = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def finished(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    return shutil.copytree(trained(), tmp_path_factory.mktemp("runs") / "run")


def test_a_run_writes_what_the_design_says(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "environment.json", "checkpoints", "metrics.jsonl", "samples.jsonl", "tensorboard"} <= names
    assert len([name for name in names if name.startswith("training_") and name.endswith(".log")]) == 1
    environment = json.loads((finished / "environment.json").read_text())
    assert set(environment) == {
        "imports",
        "command",
        "versions",
        "git",
        "device",
        "arithmetic",
        "tokenizer",
        "initial_weights",
        "data",
        "model",
    }
    parameters = final_checkpoint(finished)["state_dict"]
    assert environment["model"]["parameters"] == sum(
        weight.numel() for name, weight in parameters.items() if name != "model.head.weight"
    )
    assert [row["step"] for row in untimed(finished / "metrics.jsonl")] == [2, 4, 6, 8, 10, 12]
    assert [path.stem for path in sorted((finished / "checkpoints").glob("*.pt"))] == [
        f"step_{n:08d}" for n in (4, 8, 12)
    ]
    samples = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [6] * 4 + [12] * 4
    assert [sample["chat"] for sample in samples[:4]] == [False, False, False, True]


def test_validation_is_exact(finished: Path, tiny_data: Path, tiny_config: Config, tmp_path: Path) -> None:
    """Loss, perplexity and bits per byte of the whole split, worked out one window at a time."""
    config = tiny_config(
        "name=whole", "data.val_sequences=null", "max_steps=4", "micro_batch=8", "trainer.precision=32-true"
    )
    metrics = train(config)
    model = load_model(tmp_path / "runs" / "whole")
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    losses = []
    for name in ("readmes", "stdlib", "pydoc", "docstrings"):
        stream = SourceShards(tiny_data / "bpe_512" / name).val
        nats, bearing = 0.0, []
        for start_at, stop in pairwise(stream.sequences(32, whole=False).tolist()):
            ids = torch.from_numpy(stream.read(start_at - 1, stop).astype("int64"))
            mask = torch.from_numpy(stream.read_mask(start_at, stop).copy())
            log_probabilities = model(ids[None, :-1])[0].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
            nats -= log_probabilities[mask].sum().item()
            bearing += ids[1:][mask].tolist()
        text = tokenizer.decode([i for i in bearing if i not in tokenizer.special_ids.values()])
        losses.append(nats / len(bearing))
        assert metrics[f"val/loss/{name}"] == pytest.approx(losses[-1], rel=1e-5)
        assert metrics[f"val/perplexity/{name}"] == pytest.approx(math.exp(metrics[f"val/loss/{name}"]))
        bits = metrics[f"val/loss/{name}"] * len(bearing) / math.log(2) / len(text.encode())
        assert metrics[f"val/bits_per_byte/{name}"] == pytest.approx(bits, rel=1e-6)
    assert metrics["val/loss/mean"] == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_the_ledger_says_what_was_trained_on(finished: Path) -> None:
    rows = untimed(finished / "metrics.jsonl")
    assert [row["tokens"] for row in rows] == [step * 8 * 32 for step in (2, 4, 6, 8, 10, 12)]
    for row in rows:
        realised = {key: value for key, value in row.items() if key.startswith("mix/realised/")}
        planned = {key: value for key, value in row.items() if key.startswith("mix/planned/")}
        assert sum(realised.values()) == pytest.approx(1)
        assert sum(planned.values()) == pytest.approx(1)
    trained = {name: sum(row[f"mix/realised/{name}"] * 16 for row in rows) for name in ("readmes", "stdlib", "pydoc")}
    assert all(count == pytest.approx(round(count), abs=1e-9) for count in trained.values())


def test_tensorboard_has_each_step_once(finished: Path) -> None:
    events = EventAccumulator(str(finished / "tensorboard")).Reload()
    logged = untimed(finished / "metrics.jsonl")
    for key in ("train/loss", "val/perplexity/mean", "mix/epochs/readmes"):
        expected = [(row["step"], row[key]) for row in logged if key in row]
        assert [event.step for event in events.Scalars(key)] == [step for step, _ in expected]
        assert [event.value for event in events.Scalars(key)] == pytest.approx([value for _, value in expected])
    assert any(tag.startswith("samples/") for tag in events.Tags()["tensors"])
    row = EventAccumulator(str(finished / "tensorboard" / "result")).Reload()
    assert "_hparams_/session_start_info" in row.summary_metadata
    expected = [row["val/loss/mean"] for row in logged if "val/loss/mean" in row]
    assert [event.value for event in row.Scalars("result/loss")] == pytest.approx(expected)


def test_the_same_config_gives_the_same_bytes(finished: Path, tiny_config: Config, tmp_path: Path) -> None:
    train(tiny_config("name=again", "data.workers=1"))
    again = tmp_path / "runs" / "again"
    assert untimed(again / "metrics.jsonl") == untimed(finished / "metrics.jsonl")
    assert (again / "samples.jsonl").read_bytes() == (finished / "samples.jsonl").read_bytes()
    assert all(map(torch.equal, final_weights(again).values(), final_weights(finished).values()))
    train(tiny_config("name=other", "seed=1"))
    assert untimed(tmp_path / "runs" / "other" / "metrics.jsonl") != untimed(finished / "metrics.jsonl")


def test_a_gradient_without_a_limit_is_that_of_one_it_never_reaches(tiny_config: Config, tmp_path: Path) -> None:
    for name, limit in (("none", "null"), ("high", "1e9"), ("low", "1e-3")):
        train(tiny_config(f"name={name}", f"gradient_clip={limit}", "max_steps=4"))
    none, high, low = (untimed(tmp_path / "runs" / name / "metrics.jsonl") for name in ("none", "high", "low"))
    assert none == high != low


def test_watching_does_not_change_the_training(finished: Path, tiny_config: Config, tmp_path: Path) -> None:
    train(
        tiny_config(
            "name=watched", "val_every=1", "callbacks.samples.every=1", "callbacks.checkpoints.every=3", "log_every=1"
        )
    )
    assert all(
        map(torch.equal, final_weights(tmp_path / "runs" / "watched").values(), final_weights(finished).values())
    )


@pytest.mark.parametrize("micro_batches_done", [1, 7, 8, 17])
def test_a_killed_run_ends_as_if_it_had_not_been(
    finished: Path, tiny_overrides: list[str], tiny_config: Config, tmp_path: Path, micro_batches_done: int
) -> None:
    """SIGKILL in the first step, before and after a checkpoint, inside a step; then the same command again, dropout on."""
    run = tmp_path / "runs" / "killed"
    killed([*tiny_overrides, "name=killed"], at=micro_batches_done)
    saved = [path.stem for path in sorted((run / "checkpoints").glob("*.pt"))]
    assert saved == [f"step_{step:08d}" for step in (4, 8) if step * 2 <= micro_batches_done]
    time.sleep(1.1)  # TensorBoard reads event files in the order of the seconds in their names
    train(tiny_config("name=killed"))
    assert untimed(run / "metrics.jsonl") == untimed(finished / "metrics.jsonl")
    assert (run / "samples.jsonl").read_bytes() == (finished / "samples.jsonl").read_bytes()
    straight, resumed = final_checkpoint(finished), final_checkpoint(run)
    assert all(map(torch.equal, straight["state_dict"].values(), resumed["state_dict"].values()))
    for ours, theirs in zip(straight["optimizer_states"], resumed["optimizer_states"], strict=True):
        for index, state in ours["state"].items():
            assert all(torch.equal(value, theirs["state"][index][key]) for key, value in state.items())
    assert straight["lr_schedulers"] == resumed["lr_schedulers"]
    assert straight["diet"] == resumed["diet"]
    assert sorted(path.name for path in (run / "checkpoints").glob("*.pt")) == [f"step_{n:08d}.pt" for n in (4, 8, 12)]
    steps = [event.step for event in EventAccumulator(str(run / "tensorboard")).Reload().Scalars("train/loss")]
    assert sorted(steps) == [2, 4, 6, 8, 10, 12]


def test_two_ranks_train_as_one(tiny_overrides: list[str], tmp_path: Path) -> None:
    """The same global batch cut over two processes: the same losses and weights but for the order of additions."""
    options = [*tiny_overrides, "model.dropout=0", "trainer.precision=32-true"]
    train(compose_config("train", [*options, "name=one"]))
    answer = start([*options, "name=two", "trainer.devices=2", "trainer.strategy=ddp"])
    assert answer.returncode == 0, answer.stderr
    one, two = (untimed(tmp_path / "runs" / name / "metrics.jsonl") for name in ("one", "two"))
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for ours, theirs in zip(one, two, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for path in (tmp_path / "runs" / "two" / "checkpoints").glob("step_00000012.*"):
        path.unlink()  # and once more from step 8, on both ranks
    answer = start([*options, "name=two", "trainer.devices=2", "trainer.strategy=ddp"])
    assert answer.returncode == 0, answer.stderr
    again = untimed(tmp_path / "runs" / "two" / "metrics.jsonl")
    for ours, theirs in zip(again, two, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    weights = [final_weights(tmp_path / "runs" / name) for name in ("one", "two")]
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], atol=1e-5, rtol=1e-4)


def test_a_done_run_says_so(finished: Path, tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    config = compose_config("train", [*tiny_overrides, "name=run", f"runs_dir={finished.parent}"])
    metrics = train(config)
    assert "is done: 12 steps, nothing to do" in capsys.readouterr().out
    assert metrics["val/perplexity/mean"] > 1
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_other_data_is_not_mixed_in(finished: Path, tiny_overrides: list[str]) -> None:
    path = finished / "environment.json"
    content = path.read_text()
    environment = json.loads(content)
    environment["data"]["stdlib"]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(environment))
    try:
        config = compose_config("train", [*tiny_overrides, "name=run", f"runs_dir={finished.parent}"])
        with pytest.raises(ValueError, match=r"source stdlib has changed since .* was started"):
            train(config)
    finally:
        path.write_text(content)


def test_a_multirun_gives_each_job_a_directory_and_a_process(tiny_overrides: list[str], tmp_path: Path) -> None:
    sweep = [
        *tiny_overrides,
        "experiment=quickstart",
        "max_steps=2",
        "schedule.warmup_steps=1",
        "optimizer.lr=1e-3,-1,3e-3",
    ]
    answer = start([o for o in sweep if o not in ("max_steps=12", "schedule.warmup_steps=2")], "-m")
    assert answer.returncode == 1  # one of the jobs was refused; the others ran
    assert "1 job failed" in answer.stderr
    jobs = sorted((tmp_path / "runs" / "quickstart_sweep").glob("[!.]*/"))
    assert len(jobs) == 2
    assert all("optimizer.lr=" in job.name for job in jobs)
    rates = [json.loads((job / "metrics.jsonl").read_text().splitlines()[-1])["train/lr"] for job in jobs]
    assert rates == pytest.approx([1e-3, 3e-3])
    assert (tmp_path / "runs" / "quickstart_sweep" / "multirun.yaml").is_file()  # Hydra's own, and not in the project
    for job in jobs:
        hyperparameters = EventAccumulator(str(job / "tensorboard")).Reload()
        assert hyperparameters.Scalars("val/loss/mean")


def test_8bit_adamw_resumes_too(tiny_config: Config, tmp_path: Path) -> None:
    """The same run in one go and in two, through a checkpoint that loads with weights_only=True."""
    options = ["optimizer=adamw_8bit", "+optimizer.min_8bit_size=64", "optimizer.lr=3e-3"]
    train(tiny_config("name=straight", *options))
    train(tiny_config("name=twice", *options))
    run = tmp_path / "runs" / "twice"
    for path in (run / "checkpoints").glob("step_00000012.*"):
        path.unlink()
    train(tiny_config("name=twice", *options))
    assert all(map(torch.equal, final_weights(tmp_path / "runs" / "straight").values(), final_weights(run).values()))


def test_load_model_gives_the_trained_model(finished: Path) -> None:
    model = load_model(finished)
    state = final_weights(finished)
    assert not model.training
    assert all(torch.equal(value, state[f"model.{key}"]) for key, value in model.state_dict().items())


def test_load_model_refuses_checkpoints_that_do_not_verify(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    checkpoints = tmp_path / "copy" / "checkpoints"
    for manifest in checkpoints.glob("*.json"):
        manifest.unlink()
    with pytest.raises(ValueError, match="copy has no valid checkpoint in its checkpoints folder"):
        load_model(tmp_path / "copy")
    with pytest.raises(ValueError, match=r"lacks its manifest step_00000012\.json"):
        load_model(checkpoints / "step_00000012.pt")


def test_the_readme_example_runs(finished: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    example = example.replace("runs/quickstart", str(finished)).replace("data/bpe_4096", str(tiny_data / "bpe_512"))
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
