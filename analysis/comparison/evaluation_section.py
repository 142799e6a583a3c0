"""Section of the comparison page: results of evaluate.py, with intervals."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.comparison.sortable_html_tables import sortable_table

_HEADS = ("metric", "run", "value", "95 % interval", "examples", "chance", "checkpoint", "data", "tokenizer")
_NUMBERS = ("value", "low", "high", "n", "chance")


class EvaluatedMetric(NamedTuple):
    """A result of a run, from evaluation.json."""

    checkpoint: str
    result: Mapping[str, Any]
    tokenizer: str
    """Fingerprint of the tokenizer."""

    @property
    def name(self) -> str:
        """Task, protocol and metric. Two results are comparable if this name and the data are the same."""
        return "{task} ({protocol}), {metric}".format(**self.result)

    @property
    def data(self) -> str:
        """Eight hexadecimal digits that identify the data."""
        return format_metric_value(self.result.get("data"))


def format_metric_value(data: object) -> str:
    """Eight hexadecimal digits of a hash of a result's `data` in evaluation.json."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]


def read_evaluated_metrics(run: Path) -> tuple[EvaluatedMetric, ...]:
    """The results of a run. For each metric, the result of the newest checkpoint is used. Unreadable results are
    skipped.

    Args:
        run: the run's directory.
    """
    newest: dict[tuple[str, str], EvaluatedMetric] = {}
    checkpoints = [path for path in run.glob("evaluation/step_*") if path.name.removeprefix("step_").isdecimal()]
    for path in sorted(checkpoints, key=lambda path: int(path.name.removeprefix("step_"))):
        try:
            report = json.loads((path / "evaluation.json").read_bytes())
            tokenizer = str(report["tokenizer"]["fingerprint"])
            figures = [
                EvaluatedMetric(path.name, result, tokenizer) for result in report["results"] if _is_figure(result)
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
            continue
        newest |= {(figure.name, figure.data): figure for figure in figures}
    return tuple(newest.values())


def evaluation_section(figures: Sequence[tuple[str, EvaluatedMetric]]) -> Iterator[str]:
    """A table of results, with comparable ones next to each other, and an explanation.

    Args:
        figures: (name of the run, result) of each result.
    """
    if not figures:
        yield "<p>No run was evaluated yet: run python evaluate.py run=….</p>"
        return
    ordered = sorted(figures, key=lambda pair: (pair[1].name, pair[1].data, pair[0]))
    yield from sortable_table(_HEADS, [_row(run, figure) for run, figure in ordered], name="judged")
    yield (
        '<p class="small">Results of evaluate.py for the newest checkpoint of each run. Results are comparable if they have '
        "the same metric and data (the same eight digits). Loss and perplexity, which are per token, also need the "
        "same tokenizer. If two intervals do not overlap, the models differ. If they overlap, the models may or may "
        "not differ. The intervals cover the random choice of examples only, not the effect of the training seed.</p>"
    )


def _row(run: str, figure: EvaluatedMetric) -> list[str]:
    result = figure.result
    value, low, high, chance = (
        "" if result.get(key) is None else f"{result[key]:.4f}" for key in (*_NUMBERS[:3], "chance")
    )
    interval = f"{low} to {high}" if low and high else ""
    of = (figure.checkpoint, figure.data, figure.tokenizer[:8])
    return [figure.name, run, value, interval, f"{result['n']:,}", chance, *of]


def _is_figure(result: object) -> bool:
    """Whether a result has everything that `_row` shows. An undefined value, as of a ruined model, is null."""
    if not isinstance(result, dict) or not all(
        isinstance(result.get(key), str) for key in ("task", "protocol", "metric")
    ):
        return False
    numbers = [result.get(key) for key in _NUMBERS]
    return isinstance(result.get("n"), int) and all(
        number is None or (isinstance(number, int | float) and math.isfinite(number)) for number in numbers
    )
