"""Speed, by a clock that the tests turn."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from callbacks import Checkpoints, ValidationPerplexity, samples, throughput
from data_modules import training_batches
from gpt_lightning import data_wait_profiler
from gpt_lightning.jsonl_reader import read_rows
from gpt_lightning.lit_gpt import LitGPT
from gpt_lightning.model import GPTConfig
from gpt_lightning.model.model_size import build_meta_model, flops_per_token
from running.commands.train import train

Config = Callable[..., dict[str, Any]]
TOKENS = 2 * 8 * 32  # between two lines of the log: steps, sequences, tokens of each


class Clock:
    """The time of a run, which passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self._patch = monkeypatch
        for module in (throughput, data_wait_profiler):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.seconds))

    def passes(self, seconds: float, owner: Any, name: str) -> None:
        """Each call of `owner.name` takes so long from here on."""
        call = getattr(owner, name)

        def slowly(*args: Any, **kwargs: Any) -> Any:
            self.seconds += seconds
            return call(*args, **kwargs)

        self._patch.setattr(owner, name, slowly)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A step of two micro-batches takes two seconds."""
    clock = Clock(monkeypatch)
    clock.passes(1, LitGPT, "training_step")
    return clock


def test_it_measures_training_alone_and_all_of_it(tiny_config: Config, tmp_path: Path, clock: Clock) -> None:
    """With validation, samples and checkpoints after every other line of the log."""
    clock.passes(1, ValidationPerplexity, "on_validation_epoch_end")
    clock.passes(3, samples, "generate")
    clock.passes(5, Checkpoints, "_write")
    often = ["val_every=4", "callbacks.samples.every=4", "callbacks.checkpoints.every=4"]
    train(tiny_config("name=run", "max_steps=12", *often))
    rows = read_rows(tmp_path / "runs" / "run" / "metrics.jsonl")
    alone = [TOKENS / row["speed/tokens_per_s"] for row in rows]
    overall = [TOKENS / row["speed/tokens_per_s_overall"] for row in rows]
    assert alone == pytest.approx([4] * 6)
    extra = 1 + 3 + 5
    assert overall == pytest.approx(
        [4, 4, 4 + extra, 4, 4 + extra, 4]
    )  # the lines after steps that were more than training
    assert not any("speed/mfu" in row for row in rows)  # of a CPU nobody knows the peak


def test_waiting_for_data_is_seen(tiny_config: Config, tmp_path: Path, clock: Clock) -> None:
    clock.passes(3, training_batches.TrainingBatches, "__getitem__")
    train(tiny_config("name=run", "max_steps=8"))
    rows = read_rows(tmp_path / "runs" / "run" / "metrics.jsonl")
    assert [row["speed/data_wait_share"] for row in rows] == pytest.approx([0.75] * 4)


def test_mfu_is_the_share_of_the_peak_that_the_tokens_are_worth(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this machine had a peak of 10^12 FLOP/s in every kind of arithmetic."""
    monkeypatch.setattr("callbacks.throughput.peak_flops", lambda device, number_format: 1e12)
    config = tiny_config("name=run", "max_steps=4")
    train(config)
    flops = flops_per_token(build_meta_model(GPTConfig(**config["model"], eot_id=0)))
    for row in read_rows(tmp_path / "runs" / "run" / "metrics.jsonl"):
        assert row["speed/mfu"] == pytest.approx(row["speed/tokens_per_s"] * flops / 1e12)
    assert f"MFU {row['speed/mfu']:.1%}" in next((tmp_path / "runs" / "run").glob("training_*.log")).read_text()


def test_a_gpu_beside_the_run_is_left_alone(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has one, for a run on its CPU."""
    config = tiny_config("name=run", "max_steps=4", "trainer.accelerator=cpu")
    opened = dict.fromkeys(
        ("synchronize", "max_memory_allocated", "get_device_name"), lambda: pytest.fail("it was opened")
    )
    cuda = SimpleNamespace(is_available=lambda: True, **opened)
    monkeypatch.setattr("callbacks.throughput.torch", SimpleNamespace(cuda=cuda))
    train(config)
    for row in read_rows(tmp_path / "runs" / "run" / "metrics.jsonl"):
        assert {key for key in row if key.startswith("memory/")} == {"memory/rss_gb"}


def test_without_it_nothing_is_measured(tiny_config: Config, tmp_path: Path) -> None:
    train(tiny_config("name=run", "max_steps=4", "~callbacks.throughput"))
    row = read_rows(tmp_path / "runs" / "run" / "metrics.jsonl")[-1]
    assert not any(key.startswith(("speed/", "memory/")) for key in row)
