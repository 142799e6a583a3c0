"""Train a built run, and handle everything that ends the run."""

import lightning as L
import torch

from callbacks import CheckpointWriteError, RunPruned, RunStopped
from data_modules.read_ahead_processes import ReaderLostError
from data_modules.shards.shard_integrity import DataChangedError
from gpt_lightning.console import say
from gpt_lightning.device_and_precision import deterministic_algorithms
from gpt_lightning.lit_gpt import NonFiniteLossError
from running.training.build import Run, build_trainer
from running.training.lightning_warnings import quiet_lightning
from running.training.out_of_memory import out_of_memory
from running.training.rank_processes import is_first_rank


def fit(run: Run) -> int | None:
    """Train to the last step.

    Args:
        run: the run.

    Returns:
        Number of completed steps; None if a sweep pruned the run.

    Raises:
        RunStopped, NonFiniteLossError, CheckpointWriteError, ReaderLostError, DataChangedError: the run ended before
            its last step.
        ValueError: a callback refused to start, or the GPU ran out of memory.
        RuntimeError: any other error after training had begun.
    """
    config = run.resolved.config
    with deterministic_algorithms(config.trainer.deterministic), quiet_lightning():
        trainer, start = build_trainer(run)
        try:
            _fit(run, trainer)
        except RunPruned as end:
            run.console.note(str(end), style="bold")
            return None
        except torch.OutOfMemoryError as error:
            raise ValueError(out_of_memory(config, trainer.global_step)) from error
        except (RunStopped, NonFiniteLossError, CheckpointWriteError, ReaderLostError, DataChangedError):
            raise
        except (ValueError, OSError) as error:
            if not start.begun:
                raise
            # no longer a wrong setting but a fault, which needs its traceback
            raise RuntimeError(f"training failed after step {trainer.global_step}") from error
    return int(trainer.global_step)


def _fit(run: Run, trainer: L.Trainer) -> None:
    checkpoint = run.resolved.resume_point.checkpoint
    try:
        with run.graceful_stop.listening(trainer):
            trainer.fit(run.lit, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    except (RunStopped, NonFiniteLossError, CheckpointWriteError, ReaderLostError, DataChangedError) as end:
        run.console.note(str(end), style="bold")
        if isinstance(end, (ReaderLostError, DataChangedError)) and not is_first_rank():
            say(f"error: {end}", error=True)  # the first rank does not know of it
        if isinstance(end, ReaderLostError) and run.graceful_stop.heard:
            raise RunStopped(run.graceful_stop.heard, trainer.global_step, saved=False) from end
        raise
