"""What a run says of itself: at its beginning, at its end, and to the table of hyperparameters."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from callbacks.step_log import format_seconds
from data_modules import SampleOrder
from gpt_lightning.model import GPT
from running.config import compose
from running.config.changed_settings import averaging_in
from running.config.run_config import RunConfig, TrainerConfig
from running.training.resume import ResumePoint

# settings that say where and how a run is made and watched, and not what it is
_NO_HYPERPARAMETERS = (
    *(
        "name",
        "runs_dir",
        "run_dir",
        "sweep_dir",
        "jobs_at_once",
        "data_dir",
        "data.",
        "init_from",
        "branch.",
        "resume",
        "max_hours",
    ),
    *("trainer.", "hardware.", "callbacks.", "logger.", "log_every", "val_every"),
)


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """The settings that make a run what it is, by their dotted names."""
    averaging = averaging_in(settings)
    return {
        key: value
        for key, value in compose.flatten(settings)
        if isinstance(value, (bool, int, float, str))
        and (key.startswith(averaging) or not key.startswith(_NO_HYPERPARAMETERS))
    }


def _job(config: RunConfig) -> str:
    """What tells this run from the others of its multirun; empty outside of one."""
    return config.run_dir.name if config.run_dir.parent == config.sweep_dir else ""


def headline(config: RunConfig, model: GPT, order: SampleOrder, arithmetic: str) -> str:
    tokens_per_step = config.global_batch * model.config.max_seq_len
    tokens = _amount(config.max_steps * tokens_per_step)
    epochs = (f"{s} {order.counts(order.steps)[s] / n:.2f}" for s, n in order.sequences.items())
    return (
        f"{' '.join(filter(None, (config.name, _job(config))))}: {model.n_parameters():,} parameters on {arithmetic}\n"
        f"  {config.max_steps:,} steps of {tokens_per_step:,} tokens, {tokens} in all; epochs "
        f"planned: {', '.join(epochs)}"
    )


def step_options_text(trainer: TrainerConfig) -> str:
    """What else decides the time, the memory or the bits of a step, as the end of a line."""
    choices = {
        "compiled (the first step takes a minute or more)": trainer.compile,
        "blocks recomputed": trainer.recompute == "blocks",
        "deterministic": trainer.deterministic,
    }
    return "".join(f", {choice}" for choice, chosen in choices.items() if chosen)


def start_remarks(beginning: ResumePoint, *, lost: int, max_steps: int) -> Iterator[tuple[str, str]]:
    """What there is to say of where this start begins, each with its style.

    Args:
        beginning: of this start.
        lost: steps that were made after its checkpoint, and logged.
        max_steps: of the run.
    """
    for path in beginning.damaged:
        yield (
            f"{path} does not agree with its manifest, or has none: passed over, and set aside as .damaged",
            "bold red",
        )
    for path in beginning.given_up:
        yield f"{path} is given up, and lies in a folder of {path.parent / 'given_up'} now", ""
    again = f"{lost} step{'s' * (lost > 1)} after it {'are' if lost > 1 else 'is'} made again"
    if beginning.went_back:
        yield "what resume names was gone back to at an earlier start: it goes on from there", ""
    if beginning.checkpoint:
        yield f"going on after step {beginning.step}, from {beginning.checkpoint}" + f"; {again}" * (lost > 0), ""
    elif lost > 0:
        yield f"beginning once more at step 0, as no checkpoint was saved; {again}", ""
    if beginning.branching and beginning.diet:
        was = beginning.diet["curricula"][-1]["steps"]
        if was != max_steps:
            yield f"a branch: its trunk was to have {was:,} steps, and this run {max_steps:,}", ""


def busy_machine_remark(device: str) -> Iterator[str]:
    """What to say where other programs use the cores that a run on the CPU shares with them. (It does not take fewer threads by
    itself: the last bits of a result depend on their number.)
    """
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if device == "cpu" and load > cores and "OMP_NUM_THREADS" not in os.environ:
        yield (
            f"this machine is busy, with a load of {load:.1f} on {cores} core{'s' * (cores > 1)}: a small model trains faster "
            "there on one thread, OMP_NUM_THREADS=1 python train.py …"
        )


def end_remarks(final: Mapping[str, float], *, tokens: int, seconds: float, run: Path) -> Iterator[str]:
    """What a person wants to know at the end.

    Args:
        final: the last value of every metric.
        tokens: of all steps, padding included.
        seconds: that this start took.
        run: its directory.
    """
    yield f"{_amount(tokens)} tokens; this start took {format_seconds(seconds)}"
    if "val/loss/mean" in final:
        yield (
            f"validation, mean of the sources: loss {final['val/loss/mean']:.4f}, perplexity {final['val/perplexity/mean']:.1f}, "
            f"{final['val/bits_per_byte/mean']:.3f} bits per byte"
        )
    yield f"python report.py {compose.typed('run', run)} draws it, make tensorboard shows it"


def change_remarks(changed: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """What to say of settings, versions and the device that are not as they were, as (then, now)."""
    aside = [key for key in changed if f"{key}.".startswith(_NO_HYPERPARAMETERS)]
    for key, (then, now) in changed.items():
        if key not in aside:
            yield f"changed from here on: {key}={now}, was {then}"
    if aside:
        parts = dict.fromkeys(key.partition(".")[0] for key in aside)
        yield f"changed besides, of where or how it is made and watched: {', '.join(parts)}; see changes.jsonl"


def _amount(tokens: int) -> str:
    return f"{tokens:,}" if tokens < 1_000_000 else f"{tokens / 1e6:,.1f} million"
