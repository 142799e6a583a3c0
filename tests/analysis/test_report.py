"""A finished run's pictures and summary."""

import html
import json
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from analysis.run_record import RunRecord, read_rows, smooth
from callbacks import Stopped
from callbacks.line_file import LineFile
from report import report
from train import train


def test_a_run_becomes_pictures_and_a_summary(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config("name=reported"))
    run = tmp_path / "runs" / "reported"
    capsys.readouterr()
    report({"run": str(run)})
    said = capsys.readouterr().out
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    for source in ("readmes", "pydoc", "docstrings", "stdlib", "mean"):
        assert f"{last[f'val/perplexity/{source}']:.1f}" in said
        assert f"{last[f'val/bits_per_byte/{source}']:.3f}" in said
    assert said.count("sample at step 12") == 2
    assert "tensorboard --logdir" in said
    for name in ("curves.png", "mix.png", "perplexity.png"):
        assert str(run / "report" / name) in said
        pixels = matplotlib.image.imread(run / "report" / name)
        assert pixels.shape[0] > 500
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 100  # something is drawn
    record = RunRecord(run)
    assert record.saved_steps == [4, 8, 12]
    assert record.sources == ["readmes", "stdlib", "pydoc", "docstrings"]
    assert record.unigram_perplexity("stdlib") < 512


def test_the_page_stands_alone_and_tells_what_happened(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    hostile = "</pre><script>document.title='mine'</script>"
    settings = ["name=told", "max_steps=16", "curriculum=constant", "curriculum.mixes.base={stdlib:1}"]
    config = tiny_config(*settings)
    config["callbacks"]["samples"]["prompts"] = [hostile, "class "]
    with pytest.raises(Stopped):
        train(config | {"max_hours": 1e-6})
    config["optimizer"]["lr"] = 1e-3
    train(config)
    run = RunRecord(tmp_path / "runs" / "told")
    report({"run": str(run.path)})
    page = (run.path / "report" / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [b64decode(picture) for picture in pictures] == [
        (run.path / "report" / f"{name}.png").read_bytes() for name in ("curves", "perplexity", "mix")
    ]
    assert not re.findall(r"(?:src|href)=\"(?!data:)|@import|url\(|<script", page)
    assert html.escape(hostile) in page
    assert "optimizer.lr was 0.002, and is 0.001 from here on" in page
    assert f">{run.resumed_steps[0]}</td><td>interrupted, and gone on from its checkpoint" in page
    samples = (run.path / "report" / "samples.md").read_text()
    for row in run.samples:
        assert f"Step {row['step']}:" in samples
        assert all(f"    {line}\n" in samples for line in row["response"].split("\n"))


def test_a_run_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing holds no run: train one with python train\.py name=nothing"):
        report({"run": str(tmp_path / "nothing")})
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(ValueError, match="has not logged a step yet"):
        report({"run": str(tmp_path)})


def test_a_torn_line_is_left_for_later(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]
    assert read_rows(tmp_path / "absent.jsonl") == []


def test_rows_with_strange_line_breaks_stay_whole(tmp_path: Path) -> None:
    """U+2028, U+2029 and U+0085 end a line for str.splitlines, and a model can write them."""
    path = tmp_path / "samples.jsonl"
    rows = [{"step": step, "response": "a\u2028b\u2029c\x85d\re\nf"} for step in (100, 200, 300)]
    lines = LineFile(path)
    for row in rows:
        lines.append_row(row)
    assert read_rows(path) == rows
    lines.cut_back(step=200)
    assert read_rows(path) == rows[:2]


def test_smoothing_keeps_what_is_smooth_and_does_not_lag() -> None:
    assert smooth(np.full(20, 3.0)) == pytest.approx(np.full(20, 3.0))
    assert smooth(np.arange(40.0))[20] == pytest.approx(20.0)  # a straight line stays where it is
    noise = np.random.default_rng(0).normal(size=400)
    assert smooth(noise).std() < 0.5 * noise.std()
