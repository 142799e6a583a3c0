"""The speed stage of benchmarks/gpu_day: what is compared, the verdicts, and the table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_day import speed, table
from benchmarks.gpu_day.result_rows import append, read_rows
from benchmarks.gpu_day.speed_candidates import OURS, ROWS, TRANSFORMERS
from benchmarks.gpu_day.speed_worker import Loop

SMALL = {"n_layers": 2, "d_model": 32, "n_heads": 2, "vocab_size": 64, "max_seq_len": 16, "batch": 2}


@pytest.mark.parametrize("name", [OURS, TRANSFORMERS, "ours, modern_124m, compiled", "ours, Muon, compiled"])
def test_a_contestant_trains(name: str) -> None:
    shape = SMALL | ({"n_heads": 4} if "modern" in name else {})
    loop = Loop(ROWS[name] | {"compile": False}, shape, device="cpu", nanogpt=None)
    assert loop.run(2) > 0
    first = loop.loss
    loop.run(4)
    assert loop.loss < first


def test_nanogpt_is_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(NANOGPT)
    loop = Loop({"who": "nanogpt", "compile": False}, SMALL, device="cpu", nanogpt=str(tmp_path))
    assert loop.run(1) > 0
    with pytest.raises(ValueError, match="--nanogpt names no folder"):
        Loop({"who": "nanogpt", "compile": False}, SMALL, device="cpu", nanogpt=None)


NANOGPT = """
from dataclasses import dataclass
import torch
@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool
class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = torch.nn.Embedding(config.vocab_size, config.n_embd)
    def forward(self, ids, targets):
        logits = self.embedding(ids) @ self.embedding.weight.T
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""


def test_the_table_is_judged() -> None:
    ours = {"tokens_per_second": 120.0, "mfu": 0.55, "mb": 50.0}
    theirs = {"tokens_per_second": 100.0, "mfu": 0.45, "mb": 100.0}
    judged: Callable[..., list[Any]] = lambda rows: [  # noqa: E731
        values.get("passed") for values in speed.verdicts(rows, judged=True).values()
    ]
    assert judged({OURS: ours, TRANSFORMERS: theirs}) == [True, True, True, None]
    assert judged({OURS: ours | {"mfu": 0.49}, TRANSFORMERS: theirs | {"mb": 80.0}}) == [False, True, False, None]
    assert judged({OURS: ours, TRANSFORMERS: theirs, "litgpt, compiled": ours}) == [True, False, True, None]
    assert judged({}) == [False, False, False, None]
    assert all("passed" not in values for values in speed.verdicts({}, judged=False).values())


def test_the_rows_become_a_table(tmp_path: Path) -> None:
    results = tmp_path / "gpu_day_x.jsonl"
    said = {"mb": 9000.0, "first_step_seconds": 21.3}
    append(results, {"stage": "environment", "row": "environment", "machine": {"device": "X"}})
    append(results, {"stage": "speed", "row": OURS, "tokens_per_second": 1234.5, "mfu": 0.5, **said})
    append(results, {"stage": "speed", "row": "litgpt, compiled", "error": "no litgpt"})
    append(results, {"stage": "speed", "row": "MFU", "value": 0.5})
    rows = read_rows(results)
    assert table.lines(rows)[1:] == [
        [OURS, "1,234", "50.0%", "9,000 MB", "21 s"],
        ["litgpt, compiled", "no litgpt", "", "", ""],
    ]
    assert table.machine(rows) == {"device": "X"}
