"""A finished run's pictures and summary."""

import dataclasses
import html
import json
import re
import shutil
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.run_plots import draw_curves, draw_mix, draw_perplexity, line_style
from analysis.run_reader import LoggedRun
from analysis.series_downsampling import smooth
from callbacks import RunStopped
from gpt_lightning.console import escape_control_characters
from gpt_lightning.jsonl_reader import read_rows
from gpt_lightning.loggers.jsonl_file import JsonlFile
from running.commands.report import report
from running.commands.train import train
from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings


def draw(run: Path, *more: str) -> None:
    """As `python report.py run=… …` does."""
    report(compose_config("report", quote_text_settings([f"run={run}", *more])))


def test_a_run_becomes_pictures_and_a_summary(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config("name=reported"))
    run = tmp_path / "runs" / "reported"
    capsys.readouterr()
    draw(run)
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
    record = LoggedRun(run)
    assert record.saved_steps == [4, 8, 12]
    assert record.sources == ["readmes", "stdlib", "pydoc", "docstrings"]
    assert record.unigram_perplexity("stdlib") < 512


def test_the_page_stands_alone_and_tells_what_happened(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/bin/python3", "-u", "train.py", "name=told", "words=<a b>"])
    hostile = "</pre><script>document.title='mine'</script>"
    settings = ["name=told", "max_steps=16", "curriculum=constant", "curriculum.mixes.base={stdlib:1}"]
    config = tiny_config(*settings)
    config["callbacks"]["samples"]["prompts"] = [hostile, "class "]
    with pytest.raises(RunStopped):
        train(config | {"max_hours": 1e-6})
    config["optimizer"]["lr"] = 1e-3
    train(config)
    run = LoggedRun(tmp_path / "runs" / "told")
    draw(run.path)
    page = (run.path / "report" / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [b64decode(picture) for picture in pictures] == [
        (run.path / "report" / f"{name}.png").read_bytes() for name in ("curves", "perplexity", "mix")
    ]
    assert not re.findall(r"(?:src|href)=\"(?!data:)|@import|url\(|<script", page)
    assert html.escape(hostile) in page
    begin = page[: page.index("<h2>Validation")]
    assert html.escape("python train.py name=told 'words=<a b>'") in begin
    assert run.environment["git"]["revision"] in begin
    assert "<td>d_model=32" in re.sub("vocab_size=512, max_seq_len=32, ", "", begin)
    assert "lr=0.001, " in begin
    assert "max_steps=16, " in begin
    assert "<summary>config.yaml</summary>" in begin
    assert "optimizer.lr changed from 0.002 to 0.001" in page
    assert f">{run.resumed_steps[0]}</td><td>interrupted, and resumed from its checkpoint" in page
    samples = (run.path / "report" / "samples.md").read_text()
    for row in run.samples:
        assert f"Step {row['step']}:" in samples
        assert all(f"    {escape_control_characters(line)}\n" in samples for line in row["response"].splitlines())
    # nothing that a model or a user wrote stands where Markdown would read it
    assert all(re.match(r"$|#+ (Samples|Prompt)|Step [\d,]+:$|    ", line) for line in samples.split("\n"))


def test_a_run_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing is not a run: train one with python train\.py name=nothing"):
        draw(tmp_path / "nothing")
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(ValueError, match=r"environment\.json does not record a run's data"):
        draw(tmp_path)
    (tmp_path / "environment.json").write_text('{"data": {}}')
    with pytest.raises(ValueError, match="has not logged a step yet"):
        draw(tmp_path)
    (tmp_path / "inner" / "run").mkdir(parents=True)
    (tmp_path / "inner" / "run" / "environment.json").touch()
    with pytest.raises(ValueError, match=r"choose one of the 1 runs in it, such as run=.*/inner/run, or"):
        draw(tmp_path / "inner")
    with pytest.raises(ValueError, match=r"it is a file; give the run's folder"):
        draw(tmp_path / "environment.json")
    with pytest.raises(ValueError, match=r"use runs= to compare all runs of a pattern"):
        draw(tmp_path / "lr=*")
    with pytest.raises(ValueError, match=r"out_dir=.*environment\.json is a file: it must be a folder"):
        draw(tmp_path, f"out_dir={tmp_path / 'environment.json'}")
    with pytest.raises(ValueError, match="set only one"):
        draw(tmp_path, "runs=runs", "log_dir=runs")


@pytest.fixture
def reported(sweep: Path, tmp_path: Path) -> Path:
    """A copy of a run with a strange name, to be damaged."""
    run = tmp_path / r"a $x_{1$ [/b] [local]"
    shutil.copytree(sweep / "a", run, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return run


def test_lines_that_cannot_be_read_are_passed_over_and_counted(
    reported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, samples = (read_rows(reported / f"{name}.jsonl") for name in ("metrics", "samples"))
    lines = (reported / "metrics.jsonl").read_bytes().split(b"\n")
    (reported / "metrics.jsonl").write_bytes(b"\n".join([lines[0], b"rot", b'{"no": "step"}', *lines[1:-1], b'{"ste']))
    with (reported / "samples.jsonl").open("a") as file:
        file.write('{"step": 12, "prompt": "?", "chat": false, "response": "\\u001b[31mred\\u009b"}\nnull\n')
    draw(reported)
    said = capsys.readouterr().out
    assert "2 lines of metrics.jsonl cannot be read" in said
    assert "1 line of samples.jsonl cannot be read" in said
    assert "2 lines of metrics.jsonl cannot be read" in (reported / "report" / "report.html").read_text()
    record = LoggedRun(reported)
    for key in ("train/loss", "val/loss/mean", "mix/epochs/stdlib"):
        logged = [(row["step"], row[key]) for row in rows if key in row]
        assert [*zip(*record.metrics.series(key), strict=True)] == logged
    assert record.samples[:-1] == samples
    assert str(reported / "report" / "mix.png") in said  # brackets and all
    assert "␛[31mred\\x9b" in said
    assert not set(said) & {"\x1b", "\x9b"}


def test_how_far_a_run_is_stands_in_its_report(reported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (reported / "metrics.jsonl").read_bytes().split(b"\n")
    (reported / "metrics.jsonl").write_bytes(b"\n".join(rows[:2]) + b"\n")
    draw(reported)
    how_far = "at step 4 of 12, and no process is training it"
    assert how_far in capsys.readouterr().out
    assert how_far in (reported / "report" / "report.html").read_text()


def test_a_source_that_was_not_validated_yet_is_left_out(reported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_rows(reported / "metrics.jsonl")
    kept = [{key: value for key, value in row.items() if not re.match("val/.*/stdlib", key)} for row in rows]
    (reported / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    draw(reported)
    assert [of.source for of in LoggedRun(reported).validation] == ["readmes", "pydoc", "docstrings", "mean"]
    assert "stdlib" not in capsys.readouterr().out
    never = [{key: value for key, value in row.items() if not key.startswith("val/")} for row in rows]
    (reported / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in never))
    draw(reported)
    assert "perplexity" not in capsys.readouterr().out.replace("perplexity.png", "")


def test_a_run_of_one_source_is_drawn(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    config = tiny_config("name=one", "max_steps=4", "curriculum=constant")
    config["curriculum"] |= {"mixes": {"base": {"stdlib": 1}, "target": {"stdlib": 1}}, "max_epochs": {}}
    train(config)
    run = LoggedRun(tmp_path / "runs" / "one")
    legend = draw_mix(run, tmp_path / "mix.png").legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["stdlib", "range of all drifts"]


def test_the_pictures_hold_what_they_say(sweep: Path, tmp_path: Path) -> None:
    run = LoggedRun(sweep / "a")
    curves = dataclasses.replace(run.curves, saved=[4, 8], resumed=[6], changed=[8])
    figure = draw_curves(curves, tmp_path / "curves.png")
    loss, rate, speed, memory = figure.axes
    drawn = {line.get_label(): line.get_xydata() for line in loss.lines}
    assert drawn["each logged step"] == pytest.approx(np.stack(curves.loss, axis=1))
    assert drawn["validation, mean of sources"] == pytest.approx(np.stack(curves.validation, axis=1))
    assert drawn["checkpoint saved"][:, 0].tolist() == [4, 8]
    assert drawn["settings changed"][:, 0].tolist() == [8]
    assert [segment[0, 0] for segment in loss.collections[0].get_segments()] == [6]
    assert loss.collections[0].get_label() == "interrupted"
    for axes, key in ((rate, "train/lr"), (speed, "speed/tokens_per_s"), (memory, "memory/rss_gb")):
        assert axes.lines[0].get_xydata() == pytest.approx(np.stack(run.metrics.series(key), axis=1))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        *("nats per loss-bearing token", "learning rate", "tokens per second", "resident memory, GB")
    ]
    perplexity = draw_perplexity(run, tmp_path / "perplexity.png").axes[0]
    for line, source in zip(perplexity.lines, run.sources, strict=True):
        assert line.get_xydata() == pytest.approx(np.stack(run.metrics.series(f"val/perplexity/{source}"), axis=1))
    figure = perplexity.figure
    boxes = [text.get_window_extent() for text in perplexity.texts]
    assert len(boxes) == 2 * len(run.sources)
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def unnamed(figure: Figure) -> list[Any]:
    """The lines and areas that neither a legend nor a text of their panel names; the only line of a panel has its title."""
    every = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
    named = {text.get_text() for legend in every for text in legend.get_texts()}
    missing = []
    for axes in figure.axes:
        drawn = [*axes.lines, *axes.collections]
        beside = [text.get_text() for text in axes.texts]
        for line in drawn if len(drawn) > 1 else []:
            label = str(line.get_label())
            if label not in named and not any(text.startswith(label) for text in beside):
                missing.append(label)
    return missing


def test_legends_name_every_line(sweep: Path, reported: Path, tmp_path: Path) -> None:
    run = LoggedRun(sweep / "a")
    curves = dataclasses.replace(run.curves, saved=[4, 8], resumed=[6], changed=[8])
    assert unnamed(draw_curves(curves, tmp_path / "curves.png")) == []
    assert unnamed(draw_mix(run, tmp_path / "mix.png")) == []
    assert unnamed(draw_perplexity(run, tmp_path / "perplexity.png")) == []
    rows = [{k: v for k, v in row.items() if not k.startswith("val/")} for row in read_rows(reported / "metrics.jsonl")]
    (reported / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert unnamed(draw_perplexity(LoggedRun(reported), tmp_path / "perplexity.png")) == []
    looks = [str(line_style(n)) for n in range(36)]
    assert len(set(looks)) == len(looks)  # and no two of a picture look alike


def test_a_torn_line_is_left_for_later(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]
    assert read_rows(tmp_path / "absent.jsonl") == []


def test_rows_with_strange_line_breaks_stay_whole(tmp_path: Path) -> None:
    """U+2028, U+2029 and U+0085 end a line for str.splitlines, and a model can write them."""
    path = tmp_path / "samples.jsonl"
    rows = [{"step": step, "response": "a\u2028b\u2029c\x85d\re\nf"} for step in (100, 200, 300)]
    lines = JsonlFile(path)
    for row in rows:
        lines.append_row(row)
    assert read_rows(path) == rows
    lines.cut_back(step=200)
    assert read_rows(path) == rows[:2]


def test_smoothing_keeps_what_is_smooth_and_has_no_hook_at_its_ends() -> None:
    assert smooth(np.full(20, 3.0)) == pytest.approx(np.full(20, 3.0))
    for n in (1, 2, 3, 40, 700):
        assert smooth(np.arange(float(n))) == pytest.approx(np.arange(n), abs=1e-9)  # a straight line, to both its ends
    noise = np.random.default_rng(0).normal(size=400)
    assert smooth(noise).std() < 0.5 * noise.std()
