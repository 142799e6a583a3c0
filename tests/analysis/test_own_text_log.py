"""Text logs of our own runs are read as those of other projects."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.text_logs.log_parser import read_logs
from gpt_lightning.loggers.terminal_and_log_file import escape_control_characters
from running.commands.train import train
from tests.analysis.text_log_files import account_of, read


def test_our_own_log_is_read_too(tmp_path: Path) -> None:
    """What was told at the start of a file belongs to no step of it."""
    first = """\
[2026-11-22 02:00:00] tiny: 12,345 parameters on cuda, bf16-mixed (as asked), attention sdpa (torch chose it)
  1,200 steps of 256 tokens, 0.3 million in all; epochs planned: readmes 1.00
[2026-11-22 02:00:01] step    100 | loss 3.4512 (3.4701) | lr 5.79e-04 | 128,514 tokens/s, MFU 41.2% | 1,003 h left
[2026-11-22 02:00:02] ── samples at step 100 ─────────────────────────
[2026-11-22 02:00:02] The future of AI is → bright:
    ==================================================

    [2026-11-22 02:00:00] → gone
[2026-11-22 02:00:02] def one():
        return → 1
[2026-11-22 02:00:02] ────────────────────────────────────────────────
[2026-11-22 02:00:03] saved checkpoints/step_00000100.pt
[2026-11-22 02:00:04] step    110 | loss 12345. (3.4701) | lr 5.79e-04 | 3 h 12 min left
[2026-11-22 02:00:05] step    115 was left out: its gradient norm is 12
[2026-11-22 02:00:06] step    120 | loss nan (inf) | lr 0.00e+00 | 128,514 tokens/s | 0 s left
"""
    again = """\
[2026-11-22 03:00:00] going on after step 100, from checkpoints/step_00000100.pt; 27 steps after it are made again
[2026-11-22 03:00:04] step    110 | loss 3.3000 (3.4001) | lr 5.79e-04 | 128,514 tokens/s | 3 min left
[2026-11-22 03:00:05] SIGTERM: this step is finished and saved; once more ends at once
[2026-11-22 03:00:05] saved checkpoints/permanent/step_00000113.pt
[2026-11-22 03:00:05] stopped by SIGTERM after step 113: the same command goes on there.
"""
    last = "[2026-11-22 04:00:00] continuing after step 113, from checkpoints/step_00000113.pt\n"
    for contents in ([first, again, last], [last, again, first]):
        log = read(tmp_path, *contents)
        assert log.n_not_understood == 0, log.first_not_understood
        entries, samples = account_of(log)
        assert [tuple(entry.values())[1:] for entry in entries] == [
            (100, 3.4512, 5.79e-4, 128514, None, None, "checkpoints/step_00000100.pt", None, True),
            (110, 3.3, 5.79e-4, 128514, None, None, "checkpoints/permanent/step_00000113.pt", None, True),
            (120, None, 0.0, 128514, None, None, None, None, False),
        ]
        assert [sample["prompt"] for sample in samples[0]["samples"]] == [
            "The future of AI is",
            "def one():\n    return",
        ]
        response = f"bright:\n{'=' * 50}\n\n[2026-11-22 02:00:00] → gone"
        assert [sample["response"] for sample in samples[0]["samples"]] == [response, "1"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=1, max_size=4))
def test_whatever_a_model_writes_is_read_from_our_log(
    tmp_path_factory: pytest.TempPathFactory, responses: list[str]
) -> None:
    responses = [response.strip() for response in responses]
    samples = "".join(
        f"[2026-11-22 02:00:02] {response}\n"
        for response in (f"prompt → {response}".replace("\n", "\n    ") for response in responses)
    )
    text = f"[2026-11-22 02:00:01] ── samples at step 7 ────────────\n{samples}[2026-11-22 02:00:03] {'─' * 48}\n"
    log = read(tmp_path_factory.mktemp("samples"), text)
    assert [sample["response"] for sample in log.samples[7]["samples"]] == responses
    assert log.n_not_understood == 0


def test_a_training_is_read_from_its_log(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    train(tiny_config("name=logged"))
    run = tmp_path / "runs" / "logged"
    log = read_logs(sorted(run.glob("training_*.log")))
    assert log.n_not_understood == 0, log.first_not_understood
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "train/loss" in row]
    for name, key in (("loss", "train/loss"), ("lr", "train/lr"), ("tokens_per_s", "speed/tokens_per_s")):
        steps, values = log.steps.series(name)
        assert steps.tolist() == [row["step"] for row in rows]
        assert values.tolist() == pytest.approx([row[key] for row in rows], rel=5e-3)
    assert log.steps.saved == [4, 8, 12]
    written = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert sorted(log.samples) == [6, 12]
    for step, block in log.samples.items():
        said = [
            (escape_control_characters(row["prompt"].strip()), escape_control_characters(row["response"].strip()))
            for row in written
            if row["step"] == step
        ]
        assert [(sample["prompt"], sample["response"]) for sample in block["samples"]] == said
