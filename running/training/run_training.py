"""A training run from the settings to the last step: resolve, build, fit, summarise."""

import time

from callbacks import MedianPruning
from gpt_lightning.console import say
from gpt_lightning.early_end_file_names import PRUNED
from running.config.run_config import RunConfig
from running.training.build import Run, build
from running.training.fit import fit
from running.training.rank_agreement import RankAgreement
from running.training.rank_processes import is_first_rank
from running.training.resolve import ResolvedRun, resolve
from running.training.start_and_end_messages import end_remarks
from running.training.why_ended_early import why_ended_early


def run_training(config: RunConfig, ranks: RankAgreement) -> dict[str, float]:
    """Train a run; see `running.commands.train.train`, which holds the lock of the run directory.

    Args:
        config: config of the run.
        ranks: compares the ranks of the run.

    Returns:
        The final metrics, by name.
    """
    began = time.monotonic()
    resolved = resolve(config, ranks)
    if over := _why_over(resolved):
        if is_first_rank():
            say(f"{resolved.directory.path} {over}")
        return resolved.directory.final_metrics()
    run = build(resolved, ranks)
    steps = fit(run)
    final = resolved.directory.final_metrics()
    if steps is not None:
        summarise(run, steps=steps, final=final, seconds=time.monotonic() - began)
    return final


def summarise(run: Run, *, steps: int, final: dict[str, float], seconds: float) -> None:
    """Print how the run ended.

    Args:
        run: the run.
        steps: number of completed steps.
        final: the last value of every metric.
        seconds: duration of this start.
    """
    path, why = run.resolved.directory.path, run.ended_early.why
    done = f"done: {steps} steps" if why is None else f"ended early after step {steps}"
    run.console.note(f"{done} in {path}" + (f": {why}" if why else ""), style="bold")
    for line in end_remarks(final, tokens=steps * run.resolved.config.tokens_per_step, seconds=seconds, run=path):
        run.console.note(f"  {line}", style="")


def _why_over(resolved: ResolvedRun) -> str | None:
    """Why a run has nothing left to do; None if steps remain."""
    run, config, step = resolved.directory.path, resolved.config, resolved.resume_point.step
    if step == config.max_steps:
        return f"is done: {step} steps, nothing to do."
    if (run / PRUNED).is_file() and any(isinstance(callback, MedianPruning) for callback in resolved.callbacks):
        return "was pruned: nothing to do. To continue it, remove callbacks.MedianPruning."
    if (reason := why_ended_early(run, config.callbacks, step)) is not None:
        return f"ended early after step {step}: {reason}. Nothing to do. To continue it, change the callbacks."
    return None
