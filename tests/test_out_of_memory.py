"""A GPU whose memory is not enough ends a run in a sentence that says what to set."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from running.config.run_config import RunConfig
from running.training import out_of_memory
from tests.conftest import ROOT

# train.py, on a machine without a GPU: the third step's forward pass finds no memory left
_PROGRAM = """
import runpy, types, torch
from gpt_lightning.model import GPT
true, steps = GPT.loss_sum, []
def loss_sum(self, *inputs):
    steps.append(self.training)
    if sum(steps) == 3:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return true(self, *inputs)
GPT.loss_sum = loss_sum
torch.cuda.current_device = lambda: 0
torch.cuda.get_device_properties = lambda _: types.SimpleNamespace(name="Tesla T4", total_memory=15_800_000_000)
runpy.run_path("train.py", run_name="__main__")
"""


def test_it_says_in_one_sentence_what_to_set(tiny_overrides: list[str], tmp_path: Path) -> None:
    settings = [*tiny_overrides, "name=run", "global_batch=8", "micro_batch=8"]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *settings],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("error: after step 2, Tesla T4 is out of memory with micro_batch=8 (plan.py estimates 0.")
    assert said.endswith(
        "the GPU has 15.8 GB: set micro_batch=4 or trainer.recompute=blocks, and run the same command again."
    )


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (["global_batch=12", "micro_batch=6"], "set micro_batch=4 or trainer.recompute=blocks,"),
        (["global_batch=12", "micro_batch=3", "trainer.devices=4", "trainer.recompute=blocks"], "set micro_batch=1,"),
        (["global_batch=8", "micro_batch=1"], "set trainer.recompute=blocks,"),
        (["micro_batch=1", "trainer.recompute=blocks"], "set a smaller model or model.max_seq_len,"),
    ],
)
def test_what_it_names_divides_the_global_batch(
    settings: list[str], what: str, tiny_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gpu:
        name, total_memory = "Tesla T4", 15_800_000_000

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Gpu)
    assert what in out_of_memory.out_of_memory(RunConfig.of(tiny_config("trainer.precision=32-true", *settings)), 0)
