"""What a run prints at the start and end, and the run's hyperparameters for TensorBoard."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from callbacks.step_log import format_seconds
from data_modules import SampleOrder
from gpt_lightning.model import GPT
from gpt_lightning.setting_roles import Role, has_role
from running.config import compose
from running.config.changed_settings import averaging_in
from running.config.run_config import RunConfig, TrainerConfig
from running.training.resume import ResumePoint


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """The settings that decide a run's result, by dotted name.

    Args:
        settings: nested settings of a run.
    """
    averaging = averaging_in(settings)
    return {
        key: value
        for key, value in compose.flatten(settings)
        if isinstance(value, (bool, int, float, str)) and (key.startswith(averaging) or has_role(key, Role.RESULT))
    }


def _job(config: RunConfig) -> str:
    """The name of this run among those of its multirun; empty outside a multirun."""
    return config.run_dir.name if config.run_dir.parent == config.sweep_dir else ""


def headline(config: RunConfig, model: GPT, order: SampleOrder, arithmetic: str) -> str:
    """The first lines of a start: the model, the device, the steps and the planned epochs.

    Args:
        config: config of the run.
        model: model of the run.
        order: the sequences of the run.
        arithmetic: device, precision and kernels as text.
    """
    tokens_per_step = config.global_batch * model.config.max_seq_len
    tokens = _amount(config.max_steps * tokens_per_step)
    epochs = (f"{s} {order.counts(order.steps)[s] / n:.2f}" for s, n in order.sequences.items())
    return (
        f"{' '.join(filter(None, (config.name, _job(config))))}: {model.n_parameters():,} parameters on {arithmetic}\n"
        f"  {config.max_steps:,} steps of {tokens_per_step:,} tokens, {tokens} in all; epochs "
        f"planned: {', '.join(epochs)}"
    )


def step_options_text(trainer: TrainerConfig) -> str:
    """Options that affect the time, memory or bits of a step, as the end of a line.

    Args:
        trainer: section `trainer` of the config.
    """
    choices = {
        "compiled (the first step takes a minute or more)": trainer.compile,
        "blocks recomputed": trainer.recompute == "blocks",
        "deterministic": trainer.deterministic,
    }
    return "".join(f", {choice}" for choice, chosen in choices.items() if chosen)


def start_remarks(beginning: ResumePoint, *, lost: int, max_steps: int) -> Iterator[tuple[str, str]]:
    """Remarks on where this start begins, each with a text style.

    Args:
        beginning: where this start begins.
        lost: number of logged steps after the checkpoint, which are repeated.
        max_steps: number of steps of the run.
    """
    for path in beginning.damaged:
        yield (
            f"{path} does not match its manifest, or has none: skipped, and renamed to .damaged",
            "bold red",
        )
    for path in beginning.given_up:
        yield f"{path} is superseded, and was moved to a folder in {path.parent / 'given_up'}", ""
    again = f"{lost} step{'s' * (lost > 1)} after it {'are' if lost > 1 else 'is'} repeated"
    if beginning.went_back:
        yield "an earlier start went back to the checkpoint in resume; this start continues from the newest one", ""
    if beginning.checkpoint:
        yield f"continuing after step {beginning.step}, from {beginning.checkpoint}" + f"; {again}" * (lost > 0), ""
    elif lost > 0:
        yield f"starting again at step 0, because no checkpoint was saved; {again}", ""
    if beginning.branching and beginning.diet:
        was = beginning.diet["curricula"][-1]["steps"]
        if was != max_steps:
            yield f"a branch: its trunk was planned with {was:,} steps, this run has {max_steps:,}", ""


def no_gpu_remark(config: RunConfig, device: str) -> Iterator[str]:
    """A remark if the settings of a GPU are used on the CPU.

    Args:
        config: config of the run.
        device: cpu or cuda.
    """
    if device == "cpu" and config.chosen_gpu is not None:
        yield (
            f"the settings of a {config.chosen_gpu} were chosen, but torch sees no GPU: this run trains on the CPU. With "
            "trainer.accelerator=cuda it ends with an error instead"
        )


def busy_machine_remark(device: str) -> Iterator[str]:
    """A remark if other programs use the cores of a run on the CPU.

    The run does not lower its number of threads, because the last bits of the results depend on the number of threads.

    Args:
        device: cpu or cuda.
    """
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if device == "cpu" and load > cores and "OMP_NUM_THREADS" not in os.environ:
        yield (
            f"this machine is busy (load {load:.1f} on {cores} core{'s' * (cores > 1)}): a small model then trains "
            "faster on one thread, with OMP_NUM_THREADS=1 python train.py …"
        )


def end_remarks(final: Mapping[str, float], *, tokens: int, seconds: float, run: Path) -> Iterator[str]:
    """Summary at the end of a run.

    Args:
        final: the last value of every metric.
        tokens: tokens of all steps, including padding.
        seconds: duration of this start.
        run: the run's directory.
    """
    yield f"{_amount(tokens)} tokens; this start took {format_seconds(seconds)}"
    if "val/loss/mean" in final:
        yield (
            f"validation, mean of the sources: loss {final['val/loss/mean']:.4f}, perplexity "
            f"{final['val/perplexity/mean']:.1f}, {final['val/bits_per_byte/mean']:.3f} bits per byte"
        )
    yield f"python report.py {compose.typed('run', run)} draws the run; make tensorboard shows it"


def change_remarks(changed: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """Remarks on changed settings, versions and devices, given as (then, now).

    Args:
        changed: dotted name -> (then, now).
    """
    aside = [key for key in changed if not has_role(key, Role.RESULT)]
    for key, (then, now) in changed.items():
        if key not in aside:
            yield f"changed from here on: {key}={now}, was {then}"
    if aside:
        parts = dict.fromkeys(key.partition(".")[0] for key in aside)
        yield f"also changed, without effect on what defines the run: {', '.join(parts)}; see changes.jsonl"


def _amount(tokens: int) -> str:
    return f"{tokens:,}" if tokens < 1_000_000 else f"{tokens / 1e6:,.1f} million"
