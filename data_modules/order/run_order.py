"""The order of one run's sequences. A resumed run keeps the order of the steps that its checkpoint records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_modules.order.curriculum import Curriculum, ResolvedCurriculum
from data_modules.order.recorded_mix_weights import recorded_updates
from data_modules.order.sample_order import MixWeightUpdate, SampleOrder

_AT_ONCE = 100_000  # steps


@dataclass(frozen=True, kw_only=True)
class OrderSettings:
    """Everything that determines a run's order, except its curriculum and the steps before its checkpoint."""

    steps: int
    """Length of the run."""
    tokens_per_step: int
    global_batch: int
    """Sequences per step."""
    seed: int
    sequences: Mapping[str, int]
    """Number of training sequences of each source."""


@dataclass(frozen=True, kw_only=True)
class PastCurriculum:
    """A curriculum that a run followed before its checkpoint."""

    curriculum: Curriculum
    steps: int
    """Length of the run at that time."""
    from_step: int
    """First step with this curriculum."""
    updates: Sequence[MixWeightUpdate] = ()
    policy_digest: str | None = None
    """Digest of the weights of the curriculum policy; None: the curriculum has no policy."""


@dataclass(frozen=True, kw_only=True)
class PastOrder:
    """What a checkpoint records about the order of the steps before it. Without arguments: a new run."""

    checkpoint: Path | None = None
    step: int = 0
    """Number of completed steps."""
    first_step: int = 0
    """First step of this run; earlier steps belong to the trunk that this run branched off."""
    branching: bool = False
    """The checkpoint belongs to another run, so this run may change the mix from `step` on."""
    curricula: Sequence[PastCurriculum] = ()
    """Oldest first."""


def order_of_run(curriculum: Curriculum, settings: OrderSettings, past: PastOrder) -> SampleOrder:
    """Build the order of a run.

    Args:
        curriculum: the mix of the run.
        settings: length, batch, seed and data of the run.
        past: the steps that are already done.

    Raises:
        ValueError: the curriculum draws more from a source than allowed, or changes the mix of completed steps.
    """
    before, order = _past_orders(settings, past)
    resolved = curriculum.resolve(steps=settings.steps, tokens_per_step=settings.tokens_per_step)
    done: list[MixWeightUpdate] = []
    if order and (_settings(order.curriculum.curriculum), order.steps) == (_settings(curriculum), settings.steps):
        done = [update for update in order.updates if update[0] <= past.step]
        if not curriculum.ado:
            return order
        after = (before, order.first_step) if before else None
    else:
        after = (order, past.step) if order else None
        if order and not past.branching:
            _refuse_other_past(order.curriculum, resolved, past)
        if order and curriculum.ado and order.updates and order.curriculum.weights(0) == resolved.weights(0):
            # same initial mix: the latest updated weights hold until the next update
            done = [(past.step, weights) for step, weights in order.updates if step <= past.step][-1:]
    if curriculum.ado and curriculum.ado.record:
        first_step = after[1] if after else 0
        done = recorded_updates(resolved, first_step=first_step, done=done, beginning=past.step)
    return _order(resolved, settings, after=after, updates=done)


def _past_orders(settings: OrderSettings, past: PastOrder) -> tuple[SampleOrder | None, SampleOrder | None]:
    """(the order before the last one, the last one) of those that the checkpoint records."""
    before: SampleOrder | None = None
    order: SampleOrder | None = None
    for entry in past.curricula:
        then = entry.curriculum.resolve(steps=entry.steps, tokens_per_step=settings.tokens_per_step)
        _check_same_policy(then, entry.policy_digest, past.checkpoint)
        after = (order, entry.from_step) if order else None
        before, order = order, _order(then, settings, after=after, updates=entry.updates)
    return before, order


def _order(
    curriculum: ResolvedCurriculum,
    settings: OrderSettings,
    *,
    after: tuple[SampleOrder, int] | None,
    updates: Sequence[MixWeightUpdate],
) -> SampleOrder:
    return SampleOrder(
        curriculum,
        sequences=settings.sequences,
        global_batch=settings.global_batch,
        seed=settings.seed,
        after=after,
        updates=updates,
    )


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


def _refuse_other_past(then: ResolvedCurriculum, now: ResolvedCurriculum, past: PastOrder) -> None:
    """Refuse a curriculum that changes the mix of completed steps. Steps before a branch point belong to its trunk."""
    names = tuple(dict.fromkeys(then.sources + now.sources))
    for begin in range(past.first_step, past.step, _AT_ONCE):
        steps = np.arange(begin, min(begin + _AT_ONCE, past.step))
        old, new = (_columns(curriculum, names, steps) for curriculum in (then, now))
        difference = np.abs(new - old)
        changed = np.flatnonzero((difference > 1e-9).any(axis=1))
        if len(changed):
            step = int(changed[0])
            k = int(difference[step].argmax())
            by_fraction = then.curriculum.unit == "fraction" or then.curriculum.policy is not None
            moved = then.steps != now.steps and by_fraction
            raise ValueError(
                f"curriculum: {past.step:,} steps are done, but at step {begin + step:,} ({now.place(begin + step)}) the "
                f"weight of {names[k]} would be {new[step, k]:.4g} and was {old[step, k]:.4g}"
                + (f", because max_steps was {then.steps:,} and the curriculum uses fractions of it" if moved else "")
                + ": change later weights only, or start a new run with name=…."
            )


def _columns(curriculum: ResolvedCurriculum, names: tuple[str, ...], steps: np.ndarray) -> np.ndarray:
    """Weights of the named sources, (steps, names)."""
    columns = np.zeros((len(steps), len(names)))
    columns[:, [names.index(source) for source in curriculum.sources]] = curriculum.weights_at(steps)
    return columns
