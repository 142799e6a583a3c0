"""Section of the comparison page: what the runs wrote for the same prompt at the same step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.comparison.comparison import Comparison
from analysis.comparison.run import Run
from analysis.comparison.run_labels import run_labels
from analysis.run_reader import prompt_label

_MOST_STEPS = 12
_LONGEST = 4000  # characters of a response


def samples_section(comparison: Comparison) -> dict[str, Any]:
    """Data for the page's script: names of runs, steps, and (index of run, response) for each prompt and step.

    Compared runs come first. At most a dozen evenly spaced steps are kept, including the last. `shown` is the initial
    step.

    Args:
        comparison: the compared runs.
    """
    runs = [run for run in comparison.runs if run.samples]
    runs.sort(key=lambda run: run not in comparison.comparable)
    every = sorted({sample["step"] for run in runs for sample in run.samples})
    chosen = np.linspace(0, len(every) - 1, min(len(every), _MOST_STEPS)).round().astype(int).tolist()
    steps = [every[n] for n in chosen]
    prompts: dict[str, dict[int, list[tuple[int, str]]]] = {}
    for n, run in enumerate(runs):
        for sample in run.samples:
            if sample["step"] in steps:
                by_step = prompts.setdefault(prompt_label(sample), {})
                by_step.setdefault(sample["step"], []).append((n, sample["response"][:_LONGEST]))
    flag = {run.name: "" if run in comparison.comparable else ", not compared" for run in runs}
    labels = run_labels(comparison)
    return {
        "runs": [labels[run.name].full + flag[run.name] for run in runs],
        "steps": steps,
        "shown": _shared(steps, [run for run in runs if run in comparison.comparable] or runs),
        "prompts": [{"prompt": prompt, "by_step": by_step} for prompt, by_step in prompts.items()],
    }


def _shared(steps: Sequence[int], runs: Sequence[Run]) -> int | None:
    """The last of the steps at which most runs have samples."""
    sampled = [{sample["step"] for sample in run.samples} for run in runs]
    return max(steps, key=lambda step: (sum(step in at for at in sampled), step), default=None)
