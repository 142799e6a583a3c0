"""The real train.py with all callbacks: its speed against the bare loop, its memory against plan.py."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from benchmarks.gpu_day.result_rows import Day, read_rows
from benchmarks.gpu_day.small_run_config import UNJUDGED, config_of, rehearse
from benchmarks.gpu_day.speed_candidates import OURS, REHEARSED, SHAPE, model_config
from gpt_lightning.model.model_size import build_meta_model
from gpt_lightning.optim.optimizer_traits import ADAMW
from running.commands.train import train
from running.training.memory_estimate import TrainingSetup, peak_memory_bytes

WARM_UP, STEPS = 10, 30
MEMORY = 0.05


def run(day: Day) -> None:
    rehearse(day.rehearse)
    day.check("memory of train.py, not compiled, against plan.py", partial(memory, day))
    day.measure("train.py, compiled", partial(speed, day), seconds=20)


class Clock(L.Callback):
    """Records the end time of certain steps, including all work on the device."""

    ends: list[float]

    def __init__(self, *, steps: list[int]) -> None:
        self._steps = steps
        Clock.ends = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step in self._steps:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            Clock.ends.append(time.perf_counter())


def memory(day: Day) -> dict[str, Any]:
    """Peak memory that torch allocates in six steps, and plan.py's estimate."""
    shape = REHEARSED if day.rehearse else SHAPE
    torch.cuda.reset_peak_memory_stats()
    train(config_of([*overrides(day, shape), "name=memory", "max_steps=6"]))
    got = torch.cuda.max_memory_allocated()
    model = build_meta_model(model_config({}, shape | {"vocab_size": SHAPE["vocab_size"]}))
    setup = TrainingSetup(micro_batch=shape["batch"], precision="bf16-mixed", accumulates=False)
    expected = peak_memory_bytes(model, ADAMW, setup)
    ratio = expected / got
    return {"passed": abs(ratio - 1) <= MEMORY, "mb": got / 1e6, "planned_mb": expected / 1e6, "ratio": ratio}


def speed(day: Day) -> dict[str, Any]:
    """Tokens per second, in total and relative to the bare loop of the speed table."""
    shape = REHEARSED if day.rehearse else SHAPE
    warm_up, steps = (2, 2) if day.rehearse else (WARM_UP, STEPS)
    more = ["name=speed", f"max_steps={warm_up + steps}", "trainer.compile=true"]
    config = config_of([*overrides(day, shape), *more])
    clock = {"_target_": "benchmarks.gpu_day.trainer.Clock", "steps": [warm_up, warm_up + steps]}
    config["callbacks"] = {"clock": clock} | config["callbacks"]
    train(config)
    begin, end = Clock.ends
    tokens_per_second = steps * shape["batch"] * shape["max_seq_len"] / (end - begin)
    bare = [row["tokens_per_second"] for row in read_rows(Path(day.results)) if row["row"] == OURS and "mb" in row]
    return {"tokens_per_second": tokens_per_second, "of_bare_loop": tokens_per_second / bare[-1] if bare else None}


def overrides(day: Day, shape: dict[str, int]) -> list[str]:
    """The settings of a training run with this shape."""
    return [
        *("experiment=quickstart", "model=gpt2_124m", "tokenizer=gpt2", "model.dropout=0", "data.val_sequences=8"),
        *(f"model.{key}={value}" for key, value in shape.items() if key not in ("batch", "vocab_size")),
        f"model.vocab_size={SHAPE['vocab_size']}",  # the vocabulary of the corpus
        *(f"global_batch={shape['batch']}", f"micro_batch={shape['batch']}", "schedule.warmup_steps=2"),
        *("val_every=1000", "callbacks.samples.every=1000", "callbacks.checkpoints.every=1000"),
        *(f"data_dir={day.folder}/data", f"runs_dir={day.folder}/trainer", "trainer.accelerator=cuda"),
        "trainer.precision=bf16-mixed",
        *([*UNJUDGED, "log_every=2"] if day.rehearse else []),
    ]
