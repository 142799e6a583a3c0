"""metrics.jsonl as arrays: what is kept of it, and that a long file is read as a short one."""

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analysis import metrics_reader
from analysis.metrics_reader import LoggedMetrics

ROWS = [
    {"step": 10, "tokens": 640, "train/loss": 3.5, "note": 1},
    {"step": 20, "tokens": 1280, "train/loss": math.nan, "val/loss/mean": 3.25},
    {"step": 30, "tokens": 1920, "train/loss": 3, "note": 1},
]


def said(metrics: LoggedMetrics) -> dict[str, Any]:
    series = {key: [array.tolist() for array in metrics.series(key)] for key in metrics.keys}
    return {"rows": metrics.n_rows, "unreadable": metrics.n_unreadable, "last": metrics.last_step, "series": series}


def test_series_have_the_steps_at_which_they_were_logged() -> None:
    metrics = LoggedMetrics(ROWS, wanted=lambda key: key != "note")
    assert metrics.keys == ["tokens", "train/loss", "val/loss/mean"]
    assert metrics.series("val/loss/mean")[0].tolist() == [20]
    steps, losses = metrics.series("train/loss")
    assert steps.tolist() == [10, 20, 30]
    assert losses == pytest.approx([3.5, math.nan, 3.0], nan_ok=True)
    assert metrics.last("tokens") == 1920
    assert metrics.last("note") is None
    assert (metrics.n_rows, metrics.last_step) == (3, 30)
    assert metrics.at(30) == {"tokens": 1920, "train/loss": 3}
    assert metrics.at(15) == {}
    steps, values = metrics.table(["val/loss/mean", "tokens"])
    assert (steps.tolist(), values.tolist()) == ([10, 20, 30], [[0, 3.25, 0], [640, 1280, 1920]])


def test_later_rows_of_a_step_hold() -> None:
    metrics = LoggedMetrics([*ROWS, {"step": 20, "train/loss": 9.0}, {"step": 5, "train/loss": 4.0}])
    assert [array.tolist() for array in metrics.series("train/loss")] == [[5, 10, 20, 30], [4.0, 3.5, 9.0, 3.0]]
    assert metrics.at(20) == {"train/loss": 9.0, "tokens": 1280, "val/loss/mean": 3.25}


LINES = st.one_of(
    st.fixed_dictionaries(
        {"step": st.integers(0, 40)},
        optional={
            "train/loss": st.floats(width=32) | st.integers(-9, 9),
            "val/loss/mean": st.floats(0, 9) | st.none(),
            "tokens": st.integers(0, 2**62),
        },
    ).map(json.dumps),
    st.sampled_from(
        [
            "",
            "rot",
            "[1]",
            '"step"',
            '{"step": 1}{"step": 2}',
            '{"step": 1.5}',
            '{"step": -1}',
            '{"step": true}',
            '{"train/loss": 1}',
            '{"step": 3, "train/loss": "x"}',
            '{"step": 3, "train/loss": true}',
            '{"step": 3, "train/loss": [1]}',
            '{"step": 3, "train/lo',
        ]
    ),
)


@given(lines=st.lists(LINES, max_size=12), torn=st.booleans())
@example(
    lines=['{"step": 0, "val/loss/mean": null}', '{"step": 0, "train/loss": 0.0, "val/loss/mean": 0.0}'], torn=False
)
def test_many_lines_at_once_say_what_each_says(
    lines: list[str], torn: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines) + '{"step": 50, "train' * torn)
    with pytest.MonkeyPatch.context() as patch:
        one_by_one = LoggedMetrics.read(path)
        patch.setattr(metrics_reader, "_SHORT", -1)
        at_once = LoggedMetrics.read(path)
    assert repr(said(at_once)) == repr(said(one_by_one))  # NaN is NaN
    assert one_by_one.n_rows + one_by_one.n_unreadable == len(lines)


def test_of_a_long_run_only_what_is_drawn_is_kept(tmp_path: Path) -> None:
    """No dictionary of a row, and no text: eight bytes a value that is wanted, and the steps once."""
    n_rows = 40_000
    row = '{{"step": {0}, "train/loss": {0}.5, "train/lr": 0.001, ' + ", ".join(
        f'"other/{k}": {k}.25' for k in range(40)
    )
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(row.format(step) + "}\n" for step in range(1, n_rows + 1)))
    assert path.stat().st_size > 2 * metrics_reader._SHORT
    tracemalloc.start()
    metrics = LoggedMetrics.read(path, wanted=lambda key: key.startswith("train/"))
    steps, losses = metrics.series("train/loss")
    rates = metrics.series("train/lr")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4 * 8 * n_rows
    assert np.shares_memory(rates[0], steps)
    assert np.array_equal(losses, steps + 0.5)
