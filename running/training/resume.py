"""Where a start of a run begins: anew, at a checkpoint of its own, at one that `resume` names, or at its trunk's.

Nothing is written here; what a beginning asks for, `RunDirectory.begin` does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpt_lightning.checkpoint_retention import (
    SAVED_STEPS_FILE,
    checkpoint_step,
    list_checkpoints,
    search_checkpoints,
)
from gpt_lightning.verified_checkpoint import read_checkpoint_metadata, verify_checkpoint
from running.config.changed_settings import averaging_in, changed_settings
from running.config.compose import flatten, read_config
from running.config.run_config import RunConfig

# What a run is. Its past curriculum and its data belong to it too, see `build_sample_order` and `refuse_other_data`.
_DEFINES = {"imports", "model", "tokenizer", "seed", "global_batch", "init_from", "branch", "base_width"}
_OF_THE_TRUNK = {"imports", "model", "tokenizer", "optimizer", "base_width", "global_batch", "seed"}
_PLACES = {"runs_dir", "run_dir", "sweep_dir", "jobs_at_once"}
_WHERE_IT_RUNS = ("data_dir", "data.", "trainer.", "hardware.", "micro_batch", "max_hours", "resume")
_HOW_IT_IS_WATCHED = ("logger", "callbacks.", "log_every", "val_every")


class ResumePoint(NamedTuple):
    """Where a start of a run begins."""

    checkpoint: Path | None  # None: with fresh weights
    step: int  # steps that are completed
    diet: Mapping[str, Any] | None  # of the checkpoint, see `MixedDataModule.identity`
    branching: bool  # the checkpoint is another run's
    changes: Mapping[str, tuple[Any, Any]] = {}  # settings that are not what they were, as (then, now)
    damaged: tuple[Path, ...] = ()  # newer checkpoints that do not agree with their manifests
    named: bool = False  # the checkpoint is the one that `resume` names, and the run was not taken back to it before
    given_up: tuple[Path, ...] = ()  # newer ones than that which `resume` names
    averaged: bool = False  # the checkpoint holds an average of the weights beside them
    went_back: bool = False  # an earlier start was at the checkpoint that `resume` names

    @property
    def sources(self) -> tuple[str, ...]:
        """Those that were trained on before."""
        return tuple(self.diet["sources"]) if self.diet else ()


def find_resume_point(run: Path, config: RunConfig) -> ResumePoint:
    """Where this start of the run in the folder `run` begins.

    Raises:
        ValueError: the folder belongs to a run with other settings, all of its checkpoints are damaged, or it cannot go on or
            branch off where `resume` or `branch` says.
    """
    resume, trunk = config.resume, config.branch.run
    own = list_checkpoints(run / "checkpoints")
    begun = (run / "environment.json").is_file()
    if own and resume == "never":
        raise ValueError(
            f"resume=never, and {run} has a checkpoint of step {checkpoint_step(own[0])}: choose another run with name=…, or "
            "delete that one."
        )
    if own and not begun:
        raise ValueError(
            f"{run} has checkpoints and no environment.json, which says what they are of: put it back, or choose another run "
            "with name=…."
        )
    settings = read_config(run / "config.yaml") if begun else config.settings
    changes = changed_since(settings, config.settings)
    _refuse_another_run(run, changes, averaging=(*averaging_in(settings), *averaging_in(config.settings)))
    if resume not in ("auto", "never"):
        return _named(Path(resume), run, config, changes)
    newest, damaged = search_checkpoints(run / "checkpoints")
    if newest is None and damaged:
        raise ValueError(
            f"no checkpoint in {run / 'checkpoints'} is undamaged ({', '.join(path.name for path in damaged)}): put an undamaged "
            "copy back, or choose another run with name=… to begin anew."
        )
    if newest is None and (saved := _saved(run)) is not None:
        raise ValueError(
            f"{run} has saved a checkpoint of step {saved}, and none is left: put a copy back, or choose another run with "
            "name=… to begin anew."
        )
    if newest is None and (last := _resumed_from(run)):
        raise ValueError(
            f"{run} was begun at {last} and has no checkpoint of its own yet: start it with resume={last}."
        )
    if newest is None and trunk is not None:
        return _at(branch_point(config), config)._replace(branching=True, changes=changes)
    if newest is None:
        return ResumePoint(None, 0, None, False, changes)
    beginning = _at(newest, config)._replace(changes=changes, damaged=tuple(damaged))
    for key, (then, now) in changes.items():
        if beginning.step == config.max_steps and not key.startswith(_WHERE_IT_RUNS + _HOW_IT_IS_WATCHED):
            raise ValueError(
                f"{run} is done: {beginning.step} steps with {key}={then}, and nothing is left for {key}={now}: choose another "
                "run with name=…, or a larger max_steps."
            )
    return beginning


def changed_since(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(then, now) of every setting that differs, but for those that only say where runs lie."""
    return {key: pair for key, pair in changed_settings(then, now).items() if key not in _PLACES}


def _at(checkpoint: Path, config: RunConfig) -> ResumePoint:
    passport = read_checkpoint_metadata(checkpoint)
    if passport.step > config.max_steps:
        raise ValueError(
            f"max_steps is {config.max_steps}, and {passport.step} steps are done in {checkpoint}: set a larger one, or "
            "choose another run with name=…."
        )
    return ResumePoint(checkpoint, passport.step, passport.diet, False, averaged=passport.averaged)


def _named(path: Path, run: Path, config: RunConfig, changes: Mapping[str, tuple[Any, Any]]) -> ResumePoint:
    """At the checkpoint that `resume` names; the same command, started again, goes on and does not go back once more."""
    folder = run / "checkpoints"
    newest, damaged = search_checkpoints(folder)
    if newest is not None and _resumed_from(run) == str(path) and "resume" not in changes:
        return _at(newest, config)._replace(changes=changes, damaged=tuple(damaged), went_back=True)
    if not path.is_file() or path.suffix != ".pt":
        there = ", ".join(other.name for other in list_checkpoints(folder)) or "none"
        raise ValueError(
            f"resume={path} is no checkpoint{'' if path.exists() else ', there is no such file'}: it must be auto, never, or the "
            f"path of a file step_….pt; {folder} has {there}."
        )
    verify_checkpoint(path)
    own = [other for other in list_checkpoints(folder) if other.resolve() != path.resolve()]
    beginning = _at(path, config)._replace(named=True)
    if folder.resolve() in path.resolve().parents:
        later = tuple(other for other in own if checkpoint_step(other) >= beginning.step and not other.samefile(path))
        return beginning._replace(changes=changes, given_up=later)
    if own:
        raise ValueError(
            f"resume={path} lies elsewhere, and {run} has checkpoints of its own: choose another run with name=…."
        )
    settings = read_checkpoint_metadata(path).config
    if not settings:
        raise ValueError(f"resume={path} does not say which settings it was trained with: it is from an older version.")
    changes = changed_since(settings, config.settings)
    _refuse_another_run(path, changes, averaging=(*averaging_in(settings), *averaging_in(config.settings)))
    return beginning._replace(changes=changes)


def _resumed_from(run: Path) -> str | None:
    """The checkpoint that `resume` named when the run last began at such a one."""
    path = run / "changes.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return next((row["resumed_from"] for row in reversed(rows) if "resumed_from" in row), None)


def _saved(run: Path) -> int | None:
    """After which step the run last saved a checkpoint; None: it has not yet."""
    path = run / SAVED_STEPS_FILE
    return int(json.loads(path.read_text())["step"]) if path.is_file() else None


def _refuse_another_run(run: Path, changes: Mapping[str, tuple[Any, Any]], *, averaging: tuple[str, ...]) -> None:
    what = [
        f"{key}={then}, and now it is {now}"
        for key, (then, now) in changes.items()
        if key.split(".")[0] in _DEFINES or key == "optimizer._target_" or key.startswith(averaging)
    ]
    if what:
        raise ValueError(
            f"{run} was begun with {'; with '.join(what)}: choose another run with name=…, or set it back to go on with this one."
        )


def branch_point(config: RunConfig) -> Path:
    """The checkpoint of another run, its trunk, that a run branches off from.

    Raises:
        ValueError: there is none of that step, or the trunk is another kind of run.
    """
    trunk, step = config.branch.run, config.branch.step
    assert trunk is not None
    if not (trunk / "config.yaml").is_file():
        raise ValueError(f"branch.run={trunk} is no run: name the folder of one.")
    if config.init_from is not None:
        raise ValueError("init_from and branch.run both say which weights to begin with: set only one of them.")
    folder = trunk / "checkpoints"
    at = {checkpoint_step(path): path for path in list_checkpoints(folder)}
    if not isinstance(step, int) or step not in at:
        raise ValueError(
            f"branch.step is {'not given' if step is None else step}, and {folder} has checkpoints of the steps "
            f"{', '.join(map(str, sorted(at))) or 'none'}: "
            "choose one of them, or train the trunk with another callbacks.checkpoints.every or keep."
        )
    if step >= config.max_steps:
        raise ValueError(f"branch.step is {step}: it must be below max_steps={config.max_steps}.")
    settings = read_config(trunk / "config.yaml")
    for key, (then, now) in changed_settings(settings, config.settings).items():
        if key.split(".")[0] in _OF_THE_TRUNK:
            raise ValueError(
                f"branch.run={trunk} was trained with {key}={then}, and now it is {now}: a branch keeps the "
                "model, the tokenizer, the optimizer, the global batch and the seed of its trunk."
            )
    if "callbacks.mix_ledger._target_" in set(dict(flatten(config.settings))) - set(dict(flatten(settings))):
        raise ValueError(f"branch.run={trunk} was trained without callbacks.mix_ledger: leave it out here too.")
    verify_checkpoint(at[step])
    return at[step]
