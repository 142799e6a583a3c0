"""Speed as a stopwatch has it."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from analysis import budget
from analysis.run_record import read_rows
from callbacks import Checkpoints, samples
from data_modules import mixed_data_module
from gpt_lightning.lit_gpt import LitGPT
from train import train

Config = Callable[..., dict[str, Any]]
TOKENS = 2 * 8 * 32  # between two lines of the log: steps, sequences, tokens of each


class Stopwatch:
    """Seconds from the first micro-batch of a step to the end of its update, which takes 0.4 s at least."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of_steps: list[float] = []
        self._began = 0.0
        training_step, scheduler_step = LitGPT.training_step, LitGPT.lr_scheduler_step

        def step(module: LitGPT, batch: Any, batch_idx: int) -> Any:
            if batch_idx % 4 == 0:
                self._began = time.perf_counter()
            time.sleep(0.1)
            return training_step(module, batch, batch_idx)

        def end(module: LitGPT, scheduler: Any, metric: Any) -> None:
            scheduler_step(module, scheduler, metric)
            self.of_steps.append(time.perf_counter() - self._began)

        monkeypatch.setattr(LitGPT, "training_step", step)
        monkeypatch.setattr(LitGPT, "lr_scheduler_step", end)


def slow(call: Callable[..., Any]) -> Callable[..., Any]:
    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.4)
        return call(*args, **kwargs)

    return slowly


def test_it_measures_training_alone_and_all_of_it(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With validation, samples and checkpoints after every other line of the log, each of which takes as long as a step."""
    for place, name in ((LitGPT, "validation_step"), (samples, "generate"), (Checkpoints, "_write")):
        monkeypatch.setattr(place, name, slow(getattr(place, name)))
    watch, began = Stopwatch(monkeypatch), time.perf_counter()
    often = ["val_every=4", "callbacks.samples.every=4", "callbacks.checkpoints.every=4"]
    train(tiny_config("name=run", "max_steps=12", *often))
    whole = time.perf_counter() - began
    rows = read_rows(tmp_path / "runs" / "run" / "metrics.jsonl")
    alone = [TOKENS / row["speed/tokens_per_s"] for row in rows]
    by_stopwatch = [sum(watch.of_steps[n : n + 2]) for n in range(0, 12, 2)]
    ratios = [ours / theirs for ours, theirs in zip(alone, by_stopwatch, strict=True)]
    overall = [TOKENS / row["speed/tokens_per_s_overall"] for row in rows]
    slower = [seconds > training for seconds, training in zip(overall, alone, strict=True)]
    assert slower == [False, False, True, False, True, False]  # the lines after steps that were more than training
    for kind in (False, True):  # a machine that is busy otherwise may get between the two, but not each time
        assert min(r for r, was in zip(ratios, slower, strict=True) if was == kind) == pytest.approx(1, abs=0.01)
    assert all(overall[n] > alone[n] + 3 * 0.4 for n in (2, 4))
    assert sum(overall) < whole
    assert not any("speed/mfu" in row for row in rows)  # of a CPU nobody knows the peak


def test_waiting_for_data_is_seen(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stopwatch(monkeypatch)
    read = mixed_data_module._TrainingBatches.__getitem__

    def slowly(dataset: Any, b: int) -> Any:
        time.sleep(0.1)
        return read(dataset, b)

    train(tiny_config("name=fast", "max_steps=8"))
    monkeypatch.setattr(mixed_data_module._TrainingBatches, "__getitem__", slowly)
    train(tiny_config("name=slow", "max_steps=8"))
    fast, slow = (
        median(row["speed/data_wait_share"] for row in read_rows(tmp_path / "runs" / name / "metrics.jsonl"))
        for name in ("fast", "slow")
    )
    assert fast < 0.1
    assert 0.4 < slow < 0.6


def test_mfu_is_the_share_of_the_peak_that_the_tokens_are_worth(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this machine had a peak of 10^12 FLOP/s in every kind of arithmetic."""
    monkeypatch.setattr("callbacks.throughput.peak_flops", lambda device, number_format: 1e12)
    config = tiny_config("name=run", "max_steps=4")
    train(config)
    flops = budget.flops_per_token(config["model"])
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
