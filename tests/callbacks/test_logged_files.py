"""What a person sees of a run while it lives: TensorBoard, the terminal and its log."""

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from analysis.run_reader import LoggedRun
from analysis.text_logs.log_parser import read_logs
from callbacks.samples import Samples
from callbacks.step_log import format_step_line
from gpt_lightning.jsonl_reader import read_rows
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics
from gpt_lightning.loggers.tensorboard import TensorBoard
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger
from gpt_lightning.model import GPT
from running.commands.train import train
from running.config.compose import compose_config
from running.training.start_and_end_messages import hyperparameters
from tests.conftest import TINY
from tests.training_starts import killed

Config = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """It was killed three times: before its first checkpoint, after one, and inside the step after another."""
    runs = tmp_path_factory.mktemp("watched")
    overrides = [*TINY, f"data_dir={tiny_data}", f"runs_dir={runs}", "name=run"]
    for micro_batch in (5, 13, 19):
        killed(overrides, at=micro_batch)
        time.sleep(1.1)  # TensorBoard reads event files in the order of the seconds in their names
    train(compose_config("train", overrides))
    return runs / "run"


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def test_every_step_is_there_once(run: Path, events: EventAccumulator) -> None:
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    for tag in events.Tags()["scalars"]:
        steps = [row["step"] for row in rows if tag in row]
        assert sorted(event.step for event in events.Scalars(tag)) == steps, tag
        assert steps, tag
    assert {key for row in rows for key in row} - {"step"} == set(events.Tags()["scalars"])
    assert LoggedRun(run).resumed_steps == [4, 8]


def test_every_chart_of_the_layout_has_its_curves(events: EventAccumulator) -> None:
    """But for MFU, which a CPU has not; and every metric of a source has its chart."""
    (last,) = events.Tensors("custom_scalars__config__")[-1:]
    layout = layout_pb2.Layout.FromString(last.tensor_proto.string_val[0])
    charts = {
        (category.title, chart.title): chart.multiline.tag for category in layout.category for chart in category.chart
    }
    assert {category for category, _ in charts} == {"validation by source", "training", "mix", "speed"}
    tags, shown = events.Tags()["scalars"], set()
    for (category, title), patterns in charts.items():
        matched = {tag for tag in tags for pattern in patterns if re.search(pattern, tag)}
        assert matched or title == "MFU", (category, title)
        shown |= matched
    assert {tag.rpartition("/")[0] for tag in set(tags) - shown} == {"", "mix/tokens"}
    both = charts["mix", "stdlib, planned and realised"]
    assert {tag for tag in tags if re.search(both[0], tag)} == {"mix/planned/stdlib", "mix/realised/stdlib"}


def session_of(run: Path) -> dict[str, Any]:
    """The run's hyperparameters, as TensorBoard's table has them: of rows with the same name it shows the first."""
    events = EventAccumulator(str(run / "tensorboard" / "result")).Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = HParamsPluginData.FromString(content).session_start_info
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in session.hparams.items()}


def test_the_hyperparameters_are_those_that_the_run_has_by_now(
    tiny_overrides: list[str], tiny_config: Config, tmp_path: Path
) -> None:
    killed([*tiny_overrides, "name=run"], at=13)
    run = tmp_path / "runs" / "run"
    assert session_of(run) == hyperparameters(tiny_config("name=run"))
    train(tiny_config("name=run", "optimizer.lr=1e-3"))
    assert session_of(run) == hyperparameters(tiny_config("name=run")) | {"optimizer.lr": 1e-3}
    files = sorted(path.name for path in (run / "tensorboard" / "result").glob("*tfevents*"))
    assert files[0].endswith(".hparams"), "read first, so that nothing that is still written lies before it"
    assert len(files) == 3


def test_the_table_of_runs_has_the_columns_of_all_of_them(tmp_path: Path) -> None:
    """As TensorBoard finds them: a setting that one run alone has, what differs, and the metrics that a row shows."""
    for name, settings in (("a", {"lr": 1e-3, "beta": 0.9}), ("b", {"lr": 2e-3, "momentum": 0.95})):
        file = JsonlMetrics(tmp_path / name / "metrics.jsonl")
        logger = TensorBoard(
            tmp_path / name, terminal=ConsoleLogger(tmp_path / "log"), metrics_file=file, name="", version="tensorboard"
        )
        logger.add_run(settings, curves={"val/loss/mean": "result/loss"})
        logger.log_metrics({"train/loss": 3.0, "val/loss/mean": 4.0})
        logger.finalize("success")
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(runs, str(tmp_path))
    table, request = Context(TBContext(data_provider=provider)), RequestContext()
    found = table.experiment_from_metadata(
        request, "", True, table.hparams_metadata(request, ""), table.hparams_from_data_provider(request, "", None)
    )
    assert {column.name: column.differs for column in found.hparam_infos} == {
        "lr": True,
        "beta": False,
        "momentum": False,
    }
    assert [column.name.tag for column in found.metric_infos] == ["result/loss"]


def test_what_a_model_writes_stays_code(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the text tab, where a line of code begins with four spaces, and Markdown's lines end in any way that there is."""
    sample = Samples._sample

    def sample_hostile(samples: Samples, trainer: L.Trainer, model: GPT) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("gpt_lightning.tokenizer.base.Tokenizer.decode", lambda *_: "a\r# b\r\n<b>c\nd")
            sample(samples, trainer, model)

    monkeypatch.setattr(Samples, "_sample", sample_hostile)
    train(tiny_config("name=run", "max_steps=6"))
    events = EventAccumulator(str(tmp_path / "runs" / "run" / "tensorboard")).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("samples/")]
    assert tags
    for tag in tags:
        for event in events.Tensors(tag):
            text = event.tensor_proto.string_val[0].decode()
            assert text.splitlines()
            assert all(line.startswith("    ") for line in text.splitlines())
            assert "a␍# b␍" in text


def test_lines_fit_a_terminal_and_tell_what_there_is(run: Path) -> None:
    log = "".join(path.read_text() for path in sorted(run.glob("training_*.log")))
    said = [line.partition("] ")[2] for line in log.splitlines()]
    of_steps = [line for line in said if line.startswith("step ")]
    assert len(of_steps) >= 6
    for line in of_steps:
        assert re.fullmatch(
            r"step +\d+ \| loss \d\.\d{4} \(\d\.\d{4}\) \| lr \d\.\d\de-\d\d \| [\d,]+ tokens/s \| [\d.]+ (s|min) left",
            line,
        )
        assert len(line) <= 100
    rules = [n for n, line in enumerate(said) if line.startswith("──")]
    assert any(line.startswith("── samples at step 6 ──") for line in said)
    assert len(rules) % 2 == 0, "each block of samples begins and ends with a rule"
    assert any(line.startswith("class → ") for line in said)
    done = next(n for n, line in enumerate(said) if line.startswith("done: 12 steps in"))
    assert said[done + 1].startswith("  3,072 tokens; this start took")
    assert "loss 6." in said[done + 2]
    assert "bits per byte" in said[done + 2]


def test_the_longest_line_of_a_large_run_fits_too() -> None:
    row = {
        "step": 250_000,
        "train/loss": 10.98765,
        "train/lr": 6e-4,
        "speed/tokens_per_s": 9_876_543.2,
        "speed/mfu": 0.4123,
    }
    line = format_step_line(row, smoothed=10.9, left=99 * 3600 + 59 * 60)
    assert line.endswith(" | 9,876,543 tokens/s, MFU 41.2% | 99 h 59 min left")
    assert len(line) <= 100


AMOUNTS = st.floats(0, 1e300) | st.just(math.nan) | st.just(math.inf)


@given(
    step=st.integers(1, 10**9),
    loss=AMOUNTS,
    smoothed=AMOUNTS,
    rate=st.floats(0, 10),
    speed=AMOUNTS,
    mfu=st.floats(0, 10),
    left=st.floats(0, 1e9),
)
@example(step=10**6, loss=1e5, smoothed=99999.6, rate=6e-4, speed=1e7, mfu=1.0, left=720 * 3600)
def test_no_line_is_longer_than_a_terminal_and_each_can_be_read(
    tmp_path_factory: pytest.TempPathFactory,
    step: int,
    loss: float,
    smoothed: float,
    rate: float,
    speed: float,
    mfu: float,
    left: float,
) -> None:
    row = {"step": step, "train/loss": loss, "train/lr": rate, "speed/tokens_per_s": speed, "speed/mfu": mfu}
    line = format_step_line(row, smoothed=smoothed, left=left)
    assert len(line) <= 100
    path = tmp_path_factory.getbasetemp() / "line.log"
    path.write_text(f"[2026-11-22 02:00:01] {line}\n")
    log = read_logs([path])
    assert log.n_not_understood == 0
    for name, value in (("loss", loss), ("lr", rate), ("tokens_per_s", speed)):
        _, values = log.steps.series(name)
        said = values.tolist() or [math.nan]
        assert said == [pytest.approx(value, rel=0.06, abs=0.5, nan_ok=True)] or not math.isfinite(value)


def test_a_line_says_what_counts() -> None:
    row = {"step": 10**6, "train/loss": 1e5, "train/lr": 6e-4, "speed/tokens_per_s": 1e7, "speed/mfu": 1.0}
    line = format_step_line(row, smoothed=99999.6, left=721 * 3600)
    assert line == "step 1000000 | loss 1.0e5 (1.0e5) | lr 6.00e-04 | 10,000,000 tokens/s, MFU 100.0% | 30 d 1 h left"


def test_the_smoothed_loss_goes_on_after_a_resume(run: Path, tiny_config: Config, tmp_path: Path) -> None:
    train(tiny_config("name=straight"))
    logs = (sorted(folder.glob("training_*.log"))[-1].read_text() for folder in (run, tmp_path / "runs" / "straight"))
    ours, theirs = (re.findall(r"step     1[02] \| loss (\S+ \(\S+\))", log) for log in logs)
    assert ours == theirs
    assert len(ours) == 2
