"""Where a start of a run begins: at step 0, at a checkpoint of the run, at `resume`, or at the branch point.

This module writes nothing; `RunDirectory.begin` does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_modules.order.curriculum import Curriculum
from data_modules.order.run_order import PastCurriculum, PastOrder
from gpt_lightning.checkpoint_folder import (
    SAVED_STEPS_FILE,
    checkpoint_step,
    list_checkpoints,
    search_checkpoints,
)
from gpt_lightning.model_path_check import check_model_path
from gpt_lightning.setting_roles import Role, find_setting, has_role
from gpt_lightning.verified_checkpoint import read_checkpoint_metadata, verify_checkpoint
from running.config.changed_settings import averaging_in, changed_settings
from running.config.compose import flatten, read_config
from running.config.run_config import RunConfig, not_a_checkpoint
from running.config.settings_parser import build_section

_NOT_OF_THE_TRUNK = ("init_from", "branch")  # fixed settings of a run that its branches do not keep


class ResumePoint(NamedTuple):
    """Where a start of a run begins."""

    checkpoint: Path | None  # None: fresh weights
    step: int  # number of completed steps
    diet: Mapping[str, Any] | None  # data state in the checkpoint, see `MixedDataModule.identity`
    branching: bool  # the checkpoint belongs to another run
    changes: Mapping[str, tuple[Any, Any]] = {}  # changed settings, as (then, now)
    damaged: tuple[Path, ...] = ()  # newer checkpoints that do not match their manifests
    named: bool = False  # `resume` names the checkpoint, and no earlier start went back to it
    given_up: tuple[Path, ...] = ()  # superseded checkpoints: newer than the one that `resume` names
    averaged: bool = False  # the checkpoint also contains an average of the weights
    went_back: bool = False  # an earlier start went back to the checkpoint that `resume` names

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources that were trained on before."""
        return tuple(self.diet["sources"]) if self.diet else ()

    def past_order(self, *, first_step: int) -> PastOrder:
        """What the checkpoint records about the order of the completed steps.

        Args:
            first_step: first step of this run; earlier steps belong to the run's trunk.

        Raises:
            ValueError: a recorded curriculum cannot be read.
        """
        return PastOrder(
            checkpoint=self.checkpoint,
            step=self.step,
            first_step=first_step,
            branching=self.branching,
            curricula=[_past_curriculum(self.checkpoint, entry) for entry in self.diet["curricula"]]
            if self.diet
            else (),
        )


def _past_curriculum(checkpoint: Path | None, entry: Mapping[str, Any]) -> PastCurriculum:
    """Parse one curriculum of a checkpoint's data state."""
    try:
        updates = [(int(step), dict(weights)) for step, weights in entry.get("updates", [])]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{checkpoint}: its updates of the mix weights cannot be read.") from error
    return PastCurriculum(
        curriculum=build_section(Curriculum, str(checkpoint), entry["curriculum"]),
        steps=entry["steps"],
        from_step=entry["from_step"],
        updates=updates,
        policy_digest=entry.get("policy_digest"),
    )


def find_resume_point(run: Path, config: RunConfig) -> ResumePoint:
    """Where this start of a run begins.

    Args:
        run: the run's folder.
        config: config of the run.

    Raises:
        ValueError: the folder belongs to a run with other settings, all checkpoints of the run are damaged, or the run
            cannot start where `resume` or `branch` says.
    """
    resume, trunk = config.resume, config.branch.run
    own = list_checkpoints(run / "checkpoints")
    begun = (run / "environment.json").is_file()
    if own and resume == "never":
        raise ValueError(
            f"resume=never, but {run} has a checkpoint of step {checkpoint_step(own[0])}: start a new run with "
            "name=…, or delete the run."
        )
    if own and not begun:
        raise ValueError(
            f"{run} has checkpoints but no environment.json, which describes the run: restore that file, or start a "
            "new run with name=…."
        )
    settings = read_config(run / "config.yaml") if begun else config.settings
    changes = changed_since(settings, config.settings)
    _refuse_another_run(run, changes, averaging=(*averaging_in(settings), *averaging_in(config.settings)))
    if resume not in ("auto", "never"):
        return _named(Path(resume), run, config, changes)
    newest, damaged = search_checkpoints(run / "checkpoints")
    if newest is None and damaged:
        raise ValueError(
            f"all checkpoints in {run / 'checkpoints'} are damaged ({', '.join(path.name for path in damaged)}): "
            "restore an undamaged copy, or start a new run with name=…."
        )
    if newest is None and (saved := _saved(run)) is not None:
        raise ValueError(
            f"{run} has saved a checkpoint of step {saved}, but no checkpoint is left: restore a copy, or start "
            "a new run with name=…."
        )
    if newest is None and (last := _resumed_from(run)):
        raise ValueError(
            f"{run} was started from {last} and has no checkpoint of its own yet: start it with resume={last}."
        )
    if newest is None and trunk is not None:
        return _at(branch_point(config), config)._replace(branching=True, changes=changes)
    if newest is None:
        if config.init_from is not None:
            check_model_path(config.init_from)
        return ResumePoint(None, 0, None, False, changes)
    beginning = _at(newest, config)._replace(changes=changes, damaged=tuple(damaged))
    for key, (then, now) in changes.items():
        if beginning.step == config.max_steps and has_role(key, Role.RESULT):
            raise ValueError(
                f"{run} is done: {beginning.step} steps with {key}={then}, and no steps remain for {key}={now}: start "
                "a new run with name=…, or set a larger max_steps."
            )
    return beginning


def changed_since(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(then, now) of every setting that differs, except names and folders of the run.

    Args:
        then: the earlier settings, nested.
        now: the later settings, nested.
    """
    return {key: pair for key, pair in changed_settings(then, now).items() if not has_role(key, Role.PLACE)}


def _at(checkpoint: Path, config: RunConfig) -> ResumePoint:
    passport = read_checkpoint_metadata(checkpoint)
    if passport.step > config.max_steps:
        raise ValueError(
            f"max_steps is {config.max_steps}, but {checkpoint} has already trained for {passport.step} steps: set a larger "
            "max_steps, or "
            "start a new run with name=…."
        )
    return ResumePoint(checkpoint, passport.step, passport.diet, False, averaged=passport.averaged)


def _named(path: Path, run: Path, config: RunConfig, changes: Mapping[str, tuple[Any, Any]]) -> ResumePoint:
    """Begin at the checkpoint that `resume` names. If an earlier start did so, continue and do not go back again."""
    folder = run / "checkpoints"
    newest, damaged = search_checkpoints(folder)
    if newest is not None and _resumed_from(run) == str(path) and "resume" not in changes:
        return _at(newest, config)._replace(changes=changes, damaged=tuple(damaged), went_back=True)
    if not path.is_file() or path.suffix != ".pt":
        raise not_a_checkpoint(path, run)
    verify_checkpoint(path)
    own = [other for other in list_checkpoints(folder) if other.resolve() != path.resolve()]
    beginning = _at(path, config)._replace(named=True)
    if folder.resolve() in path.resolve().parents:
        later = tuple(other for other in own if checkpoint_step(other) >= beginning.step and not other.samefile(path))
        return beginning._replace(changes=changes, given_up=later)
    if own:
        raise ValueError(f"resume={path} is outside {run}, which has its own checkpoints: start a new run with name=….")
    settings = read_checkpoint_metadata(path).config
    if not settings:
        raise ValueError(
            f"resume={path} does not record its settings, because an older version wrote it: it can only be resumed in the "
            "run that wrote it. Set that run's name with name=…."
        )
    changes = changed_since(settings, config.settings)
    _refuse_another_run(path, changes, averaging=(*averaging_in(settings), *averaging_in(config.settings)))
    return beginning._replace(changes=changes)


def _resumed_from(run: Path) -> str | None:
    """The checkpoint in `resume` when the run last began at such a checkpoint."""
    path = run / "changes.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return next((row["resumed_from"] for row in reversed(rows) if "resumed_from" in row), None)


def _saved(run: Path) -> int | None:
    """The step of the run's last saved checkpoint; None if it has not saved one."""
    path = run / SAVED_STEPS_FILE
    return int(json.loads(path.read_text())["step"]) if path.is_file() else None


def _refuse_another_run(run: Path, changes: Mapping[str, tuple[Any, Any]], *, averaging: tuple[str, ...]) -> None:
    what = [
        f"{key}={then}, and now it is {now}"
        for key, (then, now) in changes.items()
        # the past curriculum and the data are fixed too, see `order_of_run` and `refuse_other_data`
        if find_setting(key).is_fixed or key.startswith(averaging)
    ]
    if what:
        raise ValueError(
            f"{run} was started with {'; with '.join(what)}: start a new run with name=…, or set it back to resume "
            "this run."
        )


def branch_point(config: RunConfig) -> Path:
    """The checkpoint of another run (the trunk) where a run branches off.

    Args:
        config: config of the run.

    Raises:
        ValueError: the trunk has no checkpoint of that step, or the trunk's settings differ.
    """
    trunk, step = config.branch.run, config.branch.step
    assert trunk is not None
    if not (trunk / "config.yaml").is_file():
        raise ValueError(f"branch.run={trunk} is not a run: it must be the folder of a run.")
    if config.init_from is not None:
        raise ValueError("init_from and branch.run both set the initial weights: set only one of them.")
    folder = trunk / "checkpoints"
    at = {checkpoint_step(path): path for path in list_checkpoints(folder)}
    if not isinstance(step, int) or step not in at:
        raise ValueError(
            f"branch.step is {'not given' if step is None else step}, but {folder} has checkpoints of steps "
            f"{', '.join(map(str, sorted(at))) or 'none'}: "
            "choose one of them, or train the trunk with another callbacks.checkpoints.every or keep."
        )
    if step >= config.max_steps:
        raise ValueError(f"branch.step is {step}: it must be below max_steps={config.max_steps}.")
    settings = read_config(trunk / "config.yaml")
    for key, (then, now) in changed_settings(settings, config.settings).items():
        section = key.split(".")[0]
        if (find_setting(key).is_fixed and section not in _NOT_OF_THE_TRUNK) or section == "optimizer":
            raise ValueError(
                f"{key} is {now}, but {trunk} was trained with {then}: set it back, because a branch must keep the model, "
                "the tokenizer, the optimizer, the global batch and the seed of its trunk."
            )
    if "callbacks.mix_ledger._target_" in set(dict(flatten(config.settings))) - set(dict(flatten(settings))):
        raise ValueError(
            f"branch.run={trunk} was trained without callbacks.mix_ledger: remove this callback here too, with "
            "~callbacks.mix_ledger."
        )
    verify_checkpoint(at[step])
    return at[step]
