"""Save and keep checkpoints, and truncate the logs to the step from which a run resumes."""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed

from callbacks.ado_updater import AdoUpdater
from callbacks.graceful_stop import GracefulStop, RunStopped
from callbacks.samples import Samples
from callbacks.skipped_step_log import SkippedStepLog
from callbacks.step_callback import StepCallback
from callbacks.throughput import Throughput
from callbacks.validation_perplexity import ValidationPerplexity
from gpt_lightning import random_states
from gpt_lightning.checkpoint_folder import (
    SAVED_STEPS_FILE,
    checkpoint_path,
    checkpoint_step,
    copy_to_permanent,
    keep_only,
    list_checkpoints,
    newest_valid_checkpoint,
    prune_checkpoints,
)
from gpt_lightning.durable_files import write_durably
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger

_FAILURES = 3  # consecutive failures after which the run stops


class CheckpointWriteError(Exception):
    """Checkpoints cannot be saved, so further training would be lost."""

    exit_code = os.EX_IOERR


class Checkpoints(StepCallback):
    """Save a checkpoint every `every` steps and at the end, and keep the `keep` newest in the folder.

    A checkpoint is saved when the next step starts. The metrics, samples and validation of its own step are then on
    disk. So a checkpoint is never saved between two micro-batches of a step, and the logs of a resumed run are complete
    up to its checkpoint.

    Args:
        every: Number of steps between checkpoints.
        keep: Number of checkpoints to keep.
        best: Also keep, in best/, the checkpoint with the lowest mean validation loss.
        permanent_every: Also keep, in permanent/, one checkpoint every `permanent_every` steps, permanently; None:
            none.

    Raises:
        CheckpointWriteError: During training, after three consecutive failures, or after a failure at the end.
        DataChangedError: Before a checkpoint is saved, if the training data has changed.
        RunStopped: During training, if a signal or max_hours ends the run, after saving a checkpoint.
        ValueError: `keep` or `permanent_every` is not a positive number.
    """

    def __init__(self, *, every: int, keep: int, best: bool = False, permanent_every: int | None = None) -> None:
        super().__init__(every=every)
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"callbacks.checkpoints.keep is {keep!r}: it must be a number of checkpoints, 1 or more.")
        if permanent_every is not None and (not isinstance(permanent_every, int) or permanent_every < 1):
            raise ValueError(
                f"callbacks.checkpoints.permanent_every is {permanent_every!r}: it must be a number of steps, 1 or "
                "more, or null."
            )
        self._keep = keep
        self._best = best
        self._permanent_every = permanent_every
        self._done = 0  # the last step for which saving was attempted
        self._least: tuple[float, int] | None = None  # (lowest mean validation loss, its step)
        self._failures = 0
        self._random_states: list[dict[str, Any]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._done = trainer.global_step
        if trainer.is_global_zero:
            for log in _logs(trainer, JsonlMetrics, Samples, AdoUpdater):
                try:
                    if lost := log.lines.cut_back(step=self._done):
                        ConsoleLogger.of(trainer).note(
                            f"{lost} of the lines of {log.lines.path} cannot be read: they are removed, and the "
                            f"original file is kept as {log.lines.path.name}.damaged",
                            style="bold red",
                        )
                except OSError as error:
                    raise CheckpointWriteError(
                        f"{log.lines.path} cannot be truncated to step {self._done}: {error.strerror or error}. Free "
                        "disk space, and start the same command again."
                    ) from error
            self._repair(Path(trainer.default_root_dir) / "checkpoints")
        self._least = trainer.strategy.broadcast(self._least)
        if trainer.global_rank < len(self._random_states):
            random_states.restore_states(self._random_states[trainer.global_rank])

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        step, reason = trainer.global_step, GracefulStop.of(trainer).reason
        if step > self._done:
            self._save_if_due(trainer, at_once=bool(reason))
        if reason:
            raise RunStopped(reason, step, saved=self._failures == 0)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.global_step > self._done:
            self._save_if_due(trainer, at_once=True)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what determines the order of the tokens, and the random states of all ranks."""
        checkpoint["diet"] = trainer.datamodule.identity()  # type: ignore[attr-defined]
        checkpoint["least_validation_loss"] = self._least
        # after a resume from a validated step, Lightning's own count is one too high
        checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] = trainer.global_step
        checkpoint["random_states"] = [random_states.collect_states()]
        if trainer.world_size > 1:
            states: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, checkpoint["random_states"][0])
            checkpoint["random_states"] = states

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Set Lightning's count of micro-batches to the number in the completed steps, for the current ranks and
        micro-batch size.

        Lightning would continue the count of the run that saved, which may have had other ranks or micro-batch sizes.
        Lightning also counts a micro-batch that was fetched but not processed, and would then validate the saved step
        again.
        """
        done = checkpoint["global_step"] * trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for scope in ("total", "current"):
            progress[scope] |= dict.fromkeys(("ready", "started", "processed", "completed"), done)
        self._least = checkpoint.get("least_validation_loss")
        self._random_states = checkpoint.get("random_states", [])

    def _save_if_due(self, trainer: L.Trainer, *, at_once: bool) -> None:
        """Save a checkpoint if one is due for the step: one file, which may be in several folders."""
        step, folder = trainer.global_step, Path(trainer.default_root_dir) / "checkpoints"
        least_before, best = self._least, self._is_best(trainer)
        permanent = self._permanent_every is not None and step % self._permanent_every == 0
        if not (at_once or best or permanent or step % self.every == 0):
            return
        self._done = step
        with Throughput.paused(trainer):
            module: Any = trainer.lightning_module
            module.refuse_ruined_weights()
            trainer.datamodule.refuse_changed_files()  # type: ignore[attr-defined]
            regular = at_once or step % self.every == 0
            places = [folder / name for name in ["."] * regular + ["permanent"] * permanent + ["best"] * best]
            failure = self._write(trainer, [checkpoint_path(place, step) for place in places])
            failed = trainer.strategy.reduce_boolean_decision(failure is not None, all=False)
        if failed:
            self._least = least_before
        self._failures = self._failures + 1 if failed else 0
        if not failed:
            ConsoleLogger.of(trainer).note(
                f"saved {checkpoint_path(places[0], step).relative_to(trainer.default_root_dir)}"
            )
            return
        why = failure.strerror or failure if failure else "see the output of rank 0"
        newest = newest_valid_checkpoint(folder)
        rests = f"; the newest checkpoint is {newest.name}" if newest else "; there is no checkpoint yet"
        ConsoleLogger.of(trainer).note(
            f"the checkpoint of step {step} could not be saved: {why}{rests}", style="bold red"
        )
        if self._failures == _FAILURES or step == trainer.max_steps:
            raise CheckpointWriteError(
                f"stopped after step {step}, because {self._failures} checkpoint{'s' * (self._failures > 1)} "
                f"in a row could not be saved: {why}{rests}. Free disk space, and start the same command again."
            )

    def _write(self, trainer: L.Trainer, paths: list[Path]) -> OSError | None:
        """Save to the first path and link the file to the others. Returns the error, on rank 0, if it failed."""
        if trainer.is_global_zero:
            for log in _logs(trainer, JsonlMetrics, Samples, AdoUpdater, SkippedStepLog):
                with suppress(OSError):  # unwritten lines are reported elsewhere and must not prevent the checkpoint
                    log.lines.sync()
        trainer.save_checkpoint(paths[0])
        if not trainer.is_global_zero:
            return None
        io: Any = trainer.strategy.checkpoint_io
        if io.failure:
            failure: OSError = io.failure
            return failure
        try:
            for path in paths[1:]:
                copy_to_permanent(paths[0], path.parent)
            write_durably(Path(trainer.default_root_dir) / SAVED_STEPS_FILE, {"step": trainer.global_step})
            for path in paths:
                if path.parent.name == "best":
                    keep_only(path)
            prune_checkpoints(Path(trainer.default_root_dir) / "checkpoints", keep=self._keep)
        except OSError as error:
            return error
        return None

    def _repair(self, folder: Path) -> None:
        """Add the checkpoint to the other folders, if a kill after saving prevented that."""
        newest_last = reversed(list_checkpoints(folder))
        at = {checkpoint_step(path): path for path in newest_last}
        if self._done in at and self._permanent_every and self._done % self._permanent_every == 0:
            copy_to_permanent(at[self._done], folder / "permanent")
        if not self._best or not self._least:
            return
        if self._least[1] in at:
            copy_to_permanent(at[self._least[1]], folder / "best")
            keep_only(folder / "best" / at[self._least[1]].name)
        else:
            self._least = None  # it is superseded or damaged, so the next one counts as the best

    def _is_best(self, trainer: L.Trainer) -> bool:
        """Return whether the last step was validated, with a loss below all earlier ones."""
        if not self._best:
            return False
        watchers: Any = trainer.callbacks  # type: ignore[attr-defined]
        losses = [
            w.mean_loss for w in watchers if isinstance(w, ValidationPerplexity) and w.step == trainer.global_step
        ]
        if not losses or not losses[0] < (self._least or (math.inf, 0))[0]:
            return False
        self._least = (losses[0], trainer.global_step)
        return True


def _logs(trainer: L.Trainer, *kinds: type) -> list[Any]:
    """Return the run's loggers and callbacks of these kinds, which write lines."""
    watchers: list[Any] = [*trainer.loggers, *trainer.callbacks]  # type: ignore[attr-defined]
    return [watcher for watcher in watchers if isinstance(watcher, kinds)]
