"""Report training logs as two JSON files and a plot."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.run_reader import Curves
from analysis.text_logs.log_parser import TextLog, read_logs
from analysis.text_logs.step_table import StepTable

METRICS, SAMPLES, CURVES = "llm_training_metrics.json", "llm_training_samples.json", "llm_training_curves.png"
_AT_A_TIME = 10_000  # entries formatted at a time
# encodes a column as a list with one value per line in C, many times faster than Python does with an indent
_COLUMN = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=("\n", ":"))


@dataclass(frozen=True)
class LogReport:
    """The parsed logs, and the files that were written."""

    log: TextLog
    written: tuple[Path, ...]


def report_logs(log_dir: Path, out_dir: Path, *, pattern: str) -> LogReport:
    """Read the logs in `log_dir` whose names match `pattern`, and write three files, or none, into `out_dir`.

    Args:
        log_dir: folder of the logs.
        out_dir: folder for the report.
        pattern: pattern of file names, such as training_*.log.

    Raises:
        ValueError: there is no such folder, no matching file in it, or no step in these files.
    """
    if not log_dir.is_dir():
        raise ValueError(f"log_dir={log_dir} is not a folder: it must be the folder with the logs.")
    if not pattern or Path(pattern).is_absolute():
        raise ValueError(
            f"pattern={pattern!r} does not match files in log_dir: it must be a pattern such as training_*.log."
        )
    paths = sorted(path for path in log_dir.glob(pattern) if path.is_file())
    if not paths:
        raise ValueError(f"no file in {log_dir} matches {pattern}: set another pattern=….")
    log = read_logs(paths)
    if not len(log.steps):
        raise ValueError(
            f"none of the {log.n_lines:,} lines in {log_dir}/{pattern} is a training step: "
            "set log_dir=… and pattern=… to the logs of a training run."
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out_dir, prefix=".unfinished_") as name:
        unfinished = Path(name)
        _write_table(log.steps, unfinished / METRICS)
        samples = [log.samples[step] for step in sorted(log.samples)]
        (unfinished / SAMPLES).write_text(json.dumps(samples, ensure_ascii=False, indent=2), encoding="utf-8")
        from analysis.run_plots import draw_curves  # Matplotlib is slow to import

        draw_curves(_curves(log, title=log_dir.resolve().name), unfinished / CURVES)
        written = tuple((unfinished / name).replace(out_dir / name) for name in (METRICS, SAMPLES, CURVES))
    return LogReport(log, written)


def _write_table(steps: StepTable, path: Path) -> None:
    """Write the entries as json.dumps(entries, indent=2) would."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        before = "[\n"
        for columns in steps.columns(most=_AT_A_TIME):
            texts = [_COLUMN.encode(column)[1:-1].split("\n") for column in columns.values()]
            entry = "  {\n" + ",\n".join(f'    "{name}": %s' for name in columns) + "\n  }"
            file.write(before + ",\n".join(map(entry.__mod__, zip(*texts, strict=True))))
            before = ",\n"
        file.write("\n]")


def _curves(log: TextLog, *, title: str) -> Curves:
    steps = log.steps
    return Curves(
        title=f"{title}: {len(steps):,} logged steps, {' to '.join(dict.fromkeys(steps.days))}",
        loss=steps.series("loss"),
        learning_rate=steps.series("lr"),
        tokens_per_s=steps.series("tokens_per_s"),
        memory_gb=steps.series("gpu_gb"),
        memory_of_gpu=True,
        saved=steps.saved,
        resumed=steps.interrupted,
        ours=False,
    )
