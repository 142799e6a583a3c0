"""python report.py log_dir=…: what it writes, says and refuses."""

import json
import resource
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from analysis.series_downsampling import extremes, means
from running.commands.report import report
from running.config.compose import compose_config

NAMES = [f"llm_training_{what}" for what in ("curves.png", "metrics.json", "samples.json")]
LINE = "[2026-11-22 02:00:01] step {:6d} | loss {} (3.4701) | lr 5.79e-04 | 128,514 tokens/s, MFU 41.2% | 2 min left\n"


def report_on(log_dir: Path, *more: str) -> None:
    report(compose_config("report", [f"log_dir={log_dir}", *more]))


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_files_of_a_real_log_equal_those_of_its_own_tool(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_on(shared_data / "rangeflow", f"out_dir={tmp_path / 'out'}")
    for name in ("metrics", "samples"):
        expected = (shared_data / "rangeflow" / f"expected_{name}.json").read_bytes()
        assert (tmp_path / "out" / f"llm_training_{name}.json").read_bytes() == expected
    said = capsys.readouterr().out
    for what in (
        "3 files, 480 lines, 256 of them for 250 training steps",
        "21 blocks",
        "27 checkpoints",
        "2 interruptions",
    ):
        assert what in said
    assert "0 lines could not be understood\n" in said
    pixels = matplotlib.image.imread(tmp_path / "out" / "llm_training_curves.png")
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 100  # something is drawn


def test_what_is_not_finite_is_null_and_what_is_not_logged_is_no_obstacle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = ("3.5", "nan", "inf", "-inf", "1e999")
    (tmp_path / "training_1.log").write_text("".join(LINE.format(n, loss) for n, loss in enumerate(losses)) + "?\n")
    report_on(tmp_path)
    assert "1 lines could not be understood; the first is line 6 of" in capsys.readouterr().out
    text = (tmp_path / "report" / "llm_training_metrics.json").read_text()
    entries = json.loads(text, parse_constant=pytest.fail)
    assert [entry["loss"] for entry in entries] == [3.5, None, None, None, None]
    assert {entry["gpu_gb"] for entry in entries} == {entry["elapsed_s"] for entry in entries} == {None}
    (tmp_path / "training_1.log").write_text(LINE.format(0, "nan"))
    report_on(tmp_path)  # not one point in the panel of the loss
    assert files_in(tmp_path / "report") == NAMES


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent is not a folder"):
        report_on(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no file in .* matches training_\*\.log"):
        report_on(tmp_path)
    (tmp_path / "training_1.log").write_text("Hello\n" * 3)
    with pytest.raises(ValueError, match=r"none of the 3 lines in .*training_\*\.log is a training step"):
        report_on(tmp_path)
    for pattern in ("''", "/tmp/*"):
        with pytest.raises(ValueError, match="does not match files in log_dir"):
            report_on(tmp_path, f"pattern={pattern}")
    assert files_in(tmp_path) == ["training_1.log"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    log = tmp_path / "training_1.log"
    log.write_text(LINE.format(1, 3.5))
    report_on(tmp_path)
    before = {name: (tmp_path / "report" / name).read_bytes() for name in NAMES}
    log.write_text("".join(LINE.format(n, 3.5) for n in range(100)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            report_on(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


def test_a_long_series_keeps_its_extremes_and_its_mean() -> None:
    steps, values = np.arange(10_001.0), np.random.default_rng(0).normal(size=10_001)
    values[1234] = 9
    kept_steps, kept = extremes((steps, values), most=400)
    assert len(kept) <= 400
    assert set(zip(kept_steps, kept, strict=True)) <= set(zip(steps, values, strict=True))
    assert (kept.min(), kept.max()) == (values.min(), 9)
    assert np.all(np.diff(kept_steps) > 0)
    mean_steps, mean_values = means((steps, values), most=100)
    assert len(mean_values) == 100
    assert mean_values.mean() == pytest.approx(values.mean(), abs=1e-2)
    assert mean_steps[0] == pytest.approx(49.5)
    for shorten in (extremes, means):
        assert shorten((steps, values), most=10_001) == (steps, values)
