"""What a config says of a run, checked and made into objects: the same for train.py, plan.py and verify.py."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import lightning as L
import numpy as np
import torch

from callbacks import Checkpoints, ValidationPerplexity, WeightAveraging
from data_modules import Curriculum, ResolvedCurriculum, SampleOrder
from data_modules.sample_order import MixWeightUpdate
from gpt_lightning.checkpoint import read_optimizer_state
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.optim import learning_rate_schedule, optimizer_traits, parameter_groups, try_optimizer_step
from gpt_lightning.tokenizer import Tokenizer
from running.config import allowed_targets, compose
from running.training.recorded_mix_weights import check_no_prefetching, checkpoint_updates, recorded_updates
from running.training.resume import ResumePoint

_AT_ONCE = 100_000  # steps


def build_curriculum(config: Mapping[str, Any]) -> Curriculum:
    """The curriculum, not yet pinned to the run's length.

    Raises:
        ValueError: it cannot be; the message names the keyframe.
    """
    curriculum: Curriculum = _build(Curriculum, "curriculum", config["curriculum"])
    for mix in curriculum.mixes:
        if mix in compose.group_choices("source"):
            raise ValueError(f"curriculum.mixes.{mix}: {mix} is a source, and a mix needs a name of its own.")
    return curriculum


def build_schedule(config: Mapping[str, Any]) -> Callable[[int], float]:
    """The share of the peak learning rate at each step.

    Raises:
        ValueError: its parts do not fit into the run, or it has others.
    """
    schedule: Callable[[int], float] = _build(
        learning_rate_schedule, "schedule", config["schedule"], steps=config["max_steps"]
    )
    return schedule


def build_model_config(config: Mapping[str, Any], tokenizer: Tokenizer) -> GPTConfig:
    """The model's sizes and choices.

    Raises:
        ValueError: they do not go together, or the tokenizer has more ids than the model.
    """
    model_config: GPTConfig = _build(GPTConfig, "model", config["model"], eot_id=tokenizer.eot_id)
    if model_config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"model.vocab_size is {model_config.vocab_size}, less than the {tokenizer.vocab_size} ids of tokenizer "
            f"{tokenizer.name}."
        )
    return model_config


def accumulation_steps(config: Mapping[str, Any]) -> int:
    """Micro-batches in a step on each rank.

    Raises:
        ValueError: a number is out of range, or the global batch cannot be divided.
    """
    trainer = config["trainer"]
    counts = {key: config[key] for key in ("max_steps", "global_batch", "micro_batch", "log_every", "val_every")}
    for key, value in (counts | {f"trainer.{key}": trainer[key] for key in ("devices", "num_nodes")}).items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{key} is {value!r}: it must be a whole number, 1 or more.")
    for switch in ("compile", "deterministic"):
        if not isinstance(trainer[switch], bool):
            raise ValueError(f"trainer.{switch} is {trainer[switch]!r}: it must be true or false.")
    if trainer["recompute"] not in ("none", "blocks"):
        raise ValueError(f"trainer.recompute is {trainer['recompute']!r}: it must be none or blocks.")
    if config["on_spike"] not in ("train", "skip"):
        raise ValueError(f"on_spike is {config['on_spike']!r}: it must be train or skip.")
    if not isinstance(config["seed"], int) or config["seed"] < 0:
        raise ValueError(f"seed is {config['seed']!r}: it must be a whole number, 0 or more.")
    world_size = trainer["devices"] * trainer["num_nodes"]
    accumulation, rest = divmod(config["global_batch"], config["micro_batch"] * world_size)
    if rest or not accumulation:
        ranks = f" on each of {world_size} ranks" if world_size > 1 else ""
        of_rank, uneven = divmod(config["global_batch"], world_size)
        mend = (
            f"global_batch={config['micro_batch'] * world_size}"
            if uneven or not of_rank
            else (f"micro_batch={math.gcd(of_rank, config['micro_batch'])}")
        )
        raise ValueError(
            f"global_batch={config['global_batch']} sequences cannot be divided into micro-batches of "
            f"micro_batch={config['micro_batch']}{ranks}: set {mend}, for example."
        )
    return accumulation


def build_callbacks(config: Mapping[str, Any]) -> list[L.Callback]:
    """The callbacks of the config.

    Raises:
        ValueError: one cannot be built, or there is none that saves.
    """
    watchers = [allowed_targets.build_callback(node) for node in config["callbacks"].values()]
    kept: dict[str, str] = {}  # names of those that a checkpoint keeps a state of, by the key that it has there
    for name, watcher in zip(config["callbacks"], watchers, strict=True):
        if (
            type(watcher).state_dict is not L.Callback.state_dict
            and (other := kept.setdefault(watcher.state_key, name)) != name
        ):
            raise ValueError(
                f"callbacks.{other} and callbacks.{name} are of one kind, and a checkpoint keeps one such state: leave one out."
            )
    if sum(isinstance(watcher, Checkpoints) for watcher in watchers) != 1:
        raise ValueError("callbacks.checkpoints is missing: a run without checkpoints could not be continued.")
    checks = config["callbacks"]["checkpoints"]
    if checks.get("best") and not any(isinstance(watcher, ValidationPerplexity) for watcher in watchers):
        raise ValueError(
            "callbacks.checkpoints.best is true, and callbacks.validation, which would say so, is missing."
        )
    return watchers


def check_average_kept(watchers: Iterable[L.Callback], beginning: ResumePoint) -> None:
    """A checkpoint with an average has that in the place of the weights: only the callback that made it tells them apart.

    Raises:
        ValueError: it is missing.
    """
    if beginning.averaged and not any(isinstance(watcher, WeightAveraging) for watcher in watchers):
        raise ValueError(
            f"{beginning.checkpoint} holds an average of the weights, and no callback here goes on with it: leave the "
            "callback in (callbacks.<its name>._target_=callbacks.WeightAveraging or EMAWeightAveraging)."
        )


def build_sample_order(
    config: Mapping[str, Any], curriculum: Curriculum, sequences: Mapping[str, int], beginning: ResumePoint
) -> SampleOrder:
    """The order of the run's sequences; of one that goes on or branches off, with the past that its checkpoint tells.

    Args:
        config: the run's.
        curriculum: what it says of the mix.
        sequences: training sequences of each source.
        beginning: where this start of the run begins.

    Raises:
        ValueError: the curriculum asks for more of a source than it may have, or changes what is done already.
    """
    tokens_per_step = config["global_batch"] * config["model"]["max_seq_len"]
    units: dict[str, Any] = {
        "sequences": sequences,
        "global_batch": config["global_batch"],
        "seed": config["seed"],
    }
    check_no_prefetching(config)
    order: SampleOrder | None = None
    before: SampleOrder | None = None
    for entry in beginning.diet["curricula"] if beginning.diet else ():
        was: Curriculum = _build(Curriculum, str(beginning.checkpoint), entry["curriculum"])
        then = was.resolve(steps=entry["steps"], tokens_per_step=tokens_per_step)
        before, updates = order, checkpoint_updates(beginning.checkpoint, entry)
        order = SampleOrder(then, **units, after=(order, entry["from_step"]) if order else None, updates=updates)
    resolved = curriculum.resolve(steps=config["max_steps"], tokens_per_step=tokens_per_step)
    done: list[MixWeightUpdate] = []
    if order and (_settings(order.curriculum.curriculum), order.steps) == (_settings(curriculum), config["max_steps"]):
        done = [update for update in order.updates if update[0] <= beginning.step]
        if not curriculum.ado:
            return order
        after = (before, order.first_step) if before else None
    else:
        after = (order, beginning.step) if order else None
        if order and not beginning.branching:
            _refuse_other_past(order.curriculum, resolved, config["branch"]["step"] or 0, beginning.step)
        if order and curriculum.ado and order.updates and order.curriculum.weights(0) == resolved.weights(0):
            # from the same beginning: what was learned of the weights so far holds until the next update
            done = [(beginning.step, weights) for step, weights in order.updates if step <= beginning.step][-1:]
    if curriculum.ado and curriculum.ado.record:
        first_step = after[1] if after else 0
        done = recorded_updates(resolved, first_step=first_step, done=done, beginning=beginning.step)
    return SampleOrder(resolved, **units, after=after, updates=done)


def _settings(curriculum: Curriculum) -> Curriculum:
    """What decides the weights: whether updates are taken from a record does not, as long as they are the same."""
    return replace(curriculum, ado=replace(curriculum.ado, record=None)) if curriculum.ado else curriculum


def _refuse_other_past(then: ResolvedCurriculum, now: ResolvedCurriculum, first_step: int, done: int) -> None:
    """The run's own past: before its first step a branch was its trunk, with the trunk's weights."""
    names = tuple(dict.fromkeys(then.sources + now.sources))
    for begin in range(first_step, done, _AT_ONCE):
        steps = np.arange(begin, min(begin + _AT_ONCE, done))
        old, new = (_columns(curriculum, names, steps) for curriculum in (then, now))
        difference = np.abs(new - old)
        changed = np.flatnonzero((difference > 1e-9).any(axis=1))
        if len(changed):
            step = int(changed[0])
            k = int(difference[step].argmax())
            moved = then.steps != now.steps and then.curriculum.unit == "fraction"
            raise ValueError(
                f"curriculum: {done:,} steps are done, and at step {begin + step:,} ({now.place(begin + step)}) the weight of "
                f"{names[k]} would be {new[step, k]:.4g} and was {old[step, k]:.4g}"
                + (f", as max_steps was {then.steps:,} and keyframes at fractions move with it" if moved else "")
                + ": only later weights may change; or begin a new run with name=…."
            )


def _columns(curriculum: ResolvedCurriculum, names: tuple[str, ...], steps: np.ndarray) -> np.ndarray:
    """The weights of the named sources, (steps, names)."""
    columns = np.zeros((len(steps), len(names)))
    columns[:, [names.index(source) for source in curriculum.sources]] = curriculum.weights_at(steps)
    return columns


def _build(build: Callable[..., Any], name: str, section: Mapping[str, Any], **more: Any) -> Any:
    """`build(**section, **more)`, where a key that it does not know is the user's mistake."""
    try:
        return build(**section, **more)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        near = difflib.get_close_matches(unknown[1], signature(build).parameters, n=1) if unknown else []
        raise ValueError(f"{name}: {error}" + (f": did you mean {near[0]}?" if near else ".")) from error


def build_optimizer(config: Mapping[str, Any], precision: str) -> Any:
    """Parameter groups -> the optimizer.

    Raises:
        ValueError: a setting is not for this optimizer.
    """
    options = dict(config["optimizer"])
    make_optimizer = allowed_targets.resolve_optimizer(options)
    if optimizer_traits(make_optimizer).fused and options.get("fused") and precision == "16-mixed":
        # a fused step unscales by itself, after our clipping: it would clip scaled gradients; torch chooses another one
        make_optimizer = allowed_targets.resolve_optimizer({**options, "fused": None})
    try:
        make_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))]}])
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer: {str(error).rstrip('.')}.") from error
    return make_optimizer


def check_same_optimizer(
    config: Mapping[str, Any],
    beginning: ResumePoint,
    make_optimizer: Callable[..., Any],
    groups: list[dict[str, Any]],
    device: torch.device,
) -> None:
    """Some options need a state that only they make: an optimizer goes on from a checkpoint where it finds what it needs.

    Raises:
        ValueError: it cannot go on from the checkpoint, or cannot make a step at all.
    """
    saved = None if beginning.checkpoint is None else read_optimizer_state(beginning.checkpoint)
    try:
        try_optimizer_step(make_optimizer, groups, saved, device)
    except ValueError as error:
        changed = {key: then for key, (then, _) in beginning.changes.items() if key.startswith("optimizer.")}
        if not changed:
            raise ValueError(f"optimizer: {config['optimizer']['_target_']} cannot make a step: {error}.") from error
        now, was = (
            ", ".join(f"{key}={value}" for key, value in pairs.items())
            for pairs in (
                {key: beginning.changes[key][1] for key in changed},
                changed,
            )
        )
        raise ValueError(
            f"{now} cannot go on from {beginning.checkpoint}, trained with {was}: {error}. Set it back, or choose another run "
            "with name=…."
        ) from error


def build_parameter_groups(config: Mapping[str, Any]) -> Callable[[GPT], list[dict[str, Any]]]:
    """The model -> its parameter groups, as the config's optimizer wants them.

    Raises:
        ValueError: `base_width` is no width.
    """
    base_width = config["base_width"]
    if base_width is not None and (not isinstance(base_width, int) or base_width < 1):
        raise ValueError(f"base_width is {base_width!r}: it must be a d_model, 1 or more, or null.")
    traits = optimizer_traits(allowed_targets.resolve_optimizer(config["optimizer"]))
    return partial(parameter_groups, muon=traits.muon, base_width=base_width)
