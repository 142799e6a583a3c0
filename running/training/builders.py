"""Build the parts of a run from its config, with checks. train.py, plan.py and verify.py share them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_modules import Curriculum, ResolvedCurriculum, SampleOrder
from data_modules.sample_order import MixWeightUpdate
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.optim import (
    check_optimizer_settings,
    learning_rate_schedule,
    optimizer_traits,
    parameter_groups,
    try_optimizer_step,
)
from gpt_lightning.tokenizer import Tokenizer
from gpt_lightning.verified_checkpoint import read_optimizer_state
from running.config import allowed_targets
from running.config.run_config import RunConfig
from running.config.settings_parser import build_section
from running.training.recorded_mix_weights import checkpoint_updates, recorded_updates
from running.training.resume import ResumePoint

_AT_ONCE = 100_000  # steps


def build_schedule(config: RunConfig) -> Callable[[int], float]:
    """The learning rate schedule: step -> fraction of the peak learning rate.

    Args:
        config: config of the run.

    Raises:
        ValueError: the schedule does not fit into the run, or has an unknown setting.
    """
    schedule: Callable[[int], float] = build_section(
        learning_rate_schedule, "schedule", config.schedule, steps=config.max_steps
    )
    return schedule


def build_model_config(config: RunConfig, tokenizer: Tokenizer) -> GPTConfig:
    """Sizes and choices of the model.

    Args:
        config: config of the run.
        tokenizer: gives the end-of-text id.

    Raises:
        ValueError: the model's settings contradict each other, or the tokenizer has more tokens than the model.
    """
    model_config = replace(config.model, eot_id=tokenizer.eot_id)
    if model_config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"model.vocab_size is {model_config.vocab_size}, smaller than the {tokenizer.vocab_size} tokens of "
            f"tokenizer {tokenizer.name}: set model.vocab_size={tokenizer.vocab_size} or larger."
        )
    return model_config


def build_sample_order(
    config: RunConfig, curriculum: Curriculum, sequences: Mapping[str, int], beginning: ResumePoint
) -> SampleOrder:
    """The order of the run's sequences. A resumed or branched run keeps the past that its checkpoint records.

    Args:
        config: config of the run.
        curriculum: the mix of the run.
        sequences: number of training sequences of each source.
        beginning: where this start of the run begins.

    Raises:
        ValueError: the curriculum draws more from a source than allowed, or changes the mix of completed steps.
    """
    tokens_per_step = config.tokens_per_step
    units: dict[str, Any] = {
        "sequences": sequences,
        "global_batch": config.global_batch,
        "seed": config.seed,
    }
    order: SampleOrder | None = None
    before: SampleOrder | None = None
    for entry in beginning.diet["curricula"] if beginning.diet else ():
        was: Curriculum = build_section(Curriculum, str(beginning.checkpoint), entry["curriculum"])
        then = was.resolve(steps=entry["steps"], tokens_per_step=tokens_per_step)
        _check_same_policy(then, entry.get("policy_digest"), beginning.checkpoint)
        before, updates = order, checkpoint_updates(beginning.checkpoint, entry)
        order = SampleOrder(then, **units, after=(order, entry["from_step"]) if order else None, updates=updates)
    resolved = curriculum.resolve(steps=config.max_steps, tokens_per_step=tokens_per_step)
    done: list[MixWeightUpdate] = []
    if order and (_settings(order.curriculum.curriculum), order.steps) == (_settings(curriculum), config.max_steps):
        done = [update for update in order.updates if update[0] <= beginning.step]
        if not curriculum.ado:
            return order
        after = (before, order.first_step) if before else None
    else:
        after = (order, beginning.step) if order else None
        if order and not beginning.branching:
            _refuse_other_past(order.curriculum, resolved, config.branch.step or 0, beginning.step)
        if order and curriculum.ado and order.updates and order.curriculum.weights(0) == resolved.weights(0):
            # same initial mix: the latest updated weights hold until the next update
            done = [(beginning.step, weights) for step, weights in order.updates if step <= beginning.step][-1:]
    if curriculum.ado and curriculum.ado.record:
        first_step = after[1] if after else 0
        done = recorded_updates(resolved, first_step=first_step, done=done, beginning=beginning.step)
    return SampleOrder(resolved, **units, after=after, updates=done)


def _settings(curriculum: Curriculum) -> Curriculum:
    """The settings that decide the mix weights. A record of the same updates does not change them."""
    return replace(curriculum, ado=replace(curriculum.ado, record=None)) if curriculum.ado else curriculum


def _check_same_policy(then: ResolvedCurriculum, digest: str | None, checkpoint: Path | None) -> None:
    """Check that a curriculum policy still returns the weights that the checkpoint was trained with.

    Raises:
        ValueError: it returns other weights.
    """
    if then.policy_shares and then.policy_shares.digest != digest:
        assert then.curriculum.policy is not None
        raise ValueError(
            f"curriculum.policy {then.curriculum.policy['name']} returns different weights than when {checkpoint} was "
            "saved: restore the function. To change the weights of later steps, register a changed function under "
            "another name."
        )


def _refuse_other_past(then: ResolvedCurriculum, now: ResolvedCurriculum, first_step: int, done: int) -> None:
    """Refuse a curriculum that changes the mix of completed steps. Steps before a branch point belong to its trunk."""
    names = tuple(dict.fromkeys(then.sources + now.sources))
    for begin in range(first_step, done, _AT_ONCE):
        steps = np.arange(begin, min(begin + _AT_ONCE, done))
        old, new = (_columns(curriculum, names, steps) for curriculum in (then, now))
        difference = np.abs(new - old)
        changed = np.flatnonzero((difference > 1e-9).any(axis=1))
        if len(changed):
            step = int(changed[0])
            k = int(difference[step].argmax())
            by_fraction = then.curriculum.unit == "fraction" or then.curriculum.policy is not None
            moved = then.steps != now.steps and by_fraction
            raise ValueError(
                f"curriculum: {done:,} steps are done, but at step {begin + step:,} ({now.place(begin + step)}) the "
                f"weight of {names[k]} would be {new[step, k]:.4g} and was {old[step, k]:.4g}"
                + (f", because max_steps was {then.steps:,} and the curriculum uses fractions of it" if moved else "")
                + ": change later weights only, or start a new run with name=…."
            )


def _columns(curriculum: ResolvedCurriculum, names: tuple[str, ...], steps: np.ndarray) -> np.ndarray:
    """Weights of the named sources, (steps, names)."""
    columns = np.zeros((len(steps), len(names)))
    columns[:, [names.index(source) for source in curriculum.sources]] = curriculum.weights_at(steps)
    return columns


def build_optimizer(settings: Mapping[str, Any], precision: str) -> Any:
    """The optimizer as a function of the parameter groups.

    Args:
        settings: section `optimizer` of the config.
        precision: Lightning's name for it.

    Raises:
        ValueError: the optimizer does not accept a setting.
    """
    options = dict(settings)
    make_optimizer = allowed_targets.resolve_optimizer(options)
    if optimizer_traits(make_optimizer).fused and options.get("fused") and precision == "16-mixed":
        # a fused step unscales gradients itself, after our clipping, which would then clip scaled gradients
        make_optimizer = allowed_targets.resolve_optimizer({**options, "fused": None})
    check_optimizer_settings(make_optimizer)
    return make_optimizer


def check_same_optimizer(
    config: RunConfig,
    beginning: ResumePoint,
    make_optimizer: Callable[..., Any],
    groups: list[dict[str, Any]],
    device: torch.device,
) -> None:
    """Try one step with the optimizer state of the checkpoint: some options need a state that only they create.

    Args:
        config: config of the run.
        beginning: where this start of the run begins.
        make_optimizer: parameter groups -> optimizer.
        groups: the model's parameter groups.
        device: device of the parameters.

    Raises:
        ValueError: the optimizer cannot continue from the checkpoint, or cannot make any step.
    """
    saved = None if beginning.checkpoint is None else read_optimizer_state(beginning.checkpoint)
    try:
        try_optimizer_step(make_optimizer, groups, saved, device)
    except ValueError as error:
        changed = {key: then for key, (then, _) in beginning.changes.items() if key.startswith("optimizer.")}
        if not changed:
            raise ValueError(f"optimizer: {config.optimizer_target} cannot make a step: {error}.") from error
        now, was = (
            ", ".join(f"{key}={value}" for key, value in pairs.items())
            for pairs in (
                {key: beginning.changes[key][1] for key in changed},
                changed,
            )
        )
        raise ValueError(
            f"{now} cannot continue from {beginning.checkpoint}, which was trained with {was}: {error}. Set it back, "
            "or start a new run with name=…."
        ) from error


def build_parameter_groups(config: RunConfig) -> Callable[[GPT], list[dict[str, Any]]]:
    """The parameter groups that the config's optimizer needs, as a function of the model.

    Args:
        config: config of the run.

    Raises:
        ValueError: `base_width` is not a valid width.
    """
    traits = optimizer_traits(allowed_targets.resolve_optimizer(config.optimizer))
    return partial(parameter_groups, muon=traits.muon, base_width=config.base_width)
