"""Saving, retention, and taking the logs back to where a resumed run goes on."""

from pathlib import Path
from typing import Any

import lightning as L

from callbacks.metrics_file import cut_back
from callbacks.step_callback import StepCallback
from callbacks.terminal import Terminal
from callbacks.throughput import Throughput
from gpt_lightning.checkpoint import checkpoint_path, prune


class Checkpoints(StepCallback):
    """A checkpoint every `every` steps and at the end; the `keep` newest stay, by what lies in the folder.

    It is saved as the next step begins, when the metrics, samples and validation of its own step are already on disk. So it
    is never inside an accumulation, and what a resumed run finds in its logs is complete up to its checkpoint.
    """

    def __init__(self, *, every: int, keep: int) -> None:
        super().__init__(every=every)
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"callbacks.checkpoints.keep is {keep!r}: at least 1 checkpoint has to be kept.")
        self._keep = keep
        self._saved = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._saved = trainer.global_step
        if trainer.is_global_zero:
            for file_name in ("metrics.jsonl", "samples.jsonl"):
                cut_back(Path(trainer.default_root_dir) / file_name, step=self._saved)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step > self._saved and trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.global_step > self._saved:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what decides the order of the tokens."""
        checkpoint["diet"] = trainer.datamodule.identity()  # type: ignore[attr-defined]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Count the micro-batches of the completed steps as this start of the run cuts them.

        Lightning counts on with those of the run that saved, which may have had other ranks or another micro-batch; and with one
        that was announced when the checkpoint was written and not begun, after which it would validate the saved step again.
        """
        done = checkpoint["global_step"] * trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for scope in ("total", "current"):
            progress[scope] |= dict.fromkeys(("ready", "started", "processed", "completed"), done)

    def _save(self, trainer: L.Trainer) -> None:
        with Throughput.paused(trainer):
            self._saved = trainer.global_step
            path = checkpoint_path(Path(trainer.default_root_dir) / "checkpoints", self._saved)
            trainer.save_checkpoint(path)
            if trainer.is_global_zero:
                prune(path.parent, keep=self._keep)
                Terminal.of(trainer).note(f"saved {path.relative_to(trainer.default_root_dir)}")
