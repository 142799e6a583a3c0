"""Of the page: what evaluate.py found of the runs, each figure with its interval."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.comparison.sortable_html_tables import sortable_table

_HEADS = ("figure", "run", "value", "95 % interval", "examples", "by chance", "checkpoint", "data", "tokenizer")
_NUMBERS = ("value", "low", "high", "n", "chance")


class EvaluatedMetric(NamedTuple):
    """A figure of a run, as evaluation.json says it."""

    checkpoint: str
    result: Mapping[str, Any]
    tokenizer: str
    """Its fingerprint."""

    @property
    def name(self) -> str:
        """Task, protocol and metric: what is to be the same of figures that are compared, besides their data."""
        return "{task} ({protocol}), {metric}".format(**self.result)

    @property
    def data(self) -> str:
        """Eight digits that are the same where the data are."""
        return format_metric_value(self.result.get("data"))


def format_metric_value(data: object) -> str:
    """Eight hexadecimal digits of a hash of what evaluation.json says of a figure's data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]


def read_evaluated_metrics(run: Path) -> tuple[EvaluatedMetric, ...]:
    """The figures of a run: of each one that of its newest checkpoint. What cannot be read is none."""
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
    """A table of (run's name, figure), figures of one name and the same data beside each other, and what to make of it."""
    if not figures:
        yield "<p>None of the runs was judged: python evaluate.py run=… does it.</p>"
        return
    ordered = sorted(figures, key=lambda pair: (pair[1].name, pair[1].data, pair[0]))
    yield from sortable_table(_HEADS, [_row(run, figure) for run, figure in ordered], name="judged")
    yield (
        '<p class="small">As evaluate.py found them, each of its newest checkpoint. Figures compare that have one name and the '
        "same data (the same eight digits); loss and perplexity, which are of a token, those of the same tokenizer alone. Where "
        "two intervals do not meet, the models differ; where they do, this does not say. The intervals hold the chance of the "
        "examples alone, and not that of another seed.</p>"
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
    """Whether it has what `_row` shows; a value that is none, as of a ruined model, is null."""
    if not isinstance(result, dict) or not all(
        isinstance(result.get(key), str) for key in ("task", "protocol", "metric")
    ):
        return False
    numbers = [result.get(key) for key in _NUMBERS]
    return isinstance(result.get("n"), int) and all(
        number is None or (isinstance(number, int | float) and math.isfinite(number)) for number in numbers
    )
