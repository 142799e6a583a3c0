"""Record skipped and failed steps, with the sequences of each step's batch."""

import time
from pathlib import Path
from typing import Any

import lightning as L

from callbacks.step_callback import StepCallback
from gpt_lightning.lit_gpt import NonFiniteLossError
from gpt_lightning.loggers.jsonl_file import JsonlFile
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger

_NAMED = 4  # maximum number of sequences in the printed message; faults.jsonl has all


class SkippedStepLog(StepCallback):
    """Record skipped steps, and the sequences of a step that ended the run, on the console and in faults.jsonl.

    A resume does not truncate this file, because a fault may not occur again, for example if a device caused the fault.
    """

    def __init__(self) -> None:
        super().__init__(every=1)
        self.lines = JsonlFile(Path())

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.lines = JsonlFile(Path(trainer.default_root_dir) / "faults.jsonl")

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        if module.left_out and trainer.is_global_zero:
            step = trainer.global_step
            ConsoleLogger.of(trainer).note(f"step {step} was skipped: {module.left_out}", style="bold red")
            self._record(trainer, {"step": step, "fault": "left out", "why": module.left_out})

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        if not isinstance(exception, NonFiniteLossError) or not trainer.is_global_zero:
            return
        sequences = _sequences(trainer, exception)
        named = [f"{source} {sequence} (epoch {epoch})" for _, source, epoch, sequence in sequences[:_NAMED]]
        more = f" and {len(sequences) - _NAMED:,} more, see faults.jsonl" if len(sequences) > _NAMED else ""
        which = ", ".join(f"micro-batch {micro} on rank {rank}" for rank, micro in exception.micro_batches)
        what = {
            "loss": f"the loss of {which} is not finite",
            "gradient": "the loss is finite, but the gradient is not",
            "update": "loss and gradient are finite, but the weights after the update are not",
        }[exception.what]
        ConsoleLogger.of(trainer).note(
            f"{what}. Sequences: {', '.join(named)}{more}. Start the same command again; if it ends at the same step, "
            "lower optimizer.lr.",
            style="bold red",
        )
        row = {
            "step": exception.step + 1,
            "fault": "not finite",
            "loss": str(exception.loss),
            "norm": str(exception.norm),
        }
        self._record(trainer, row | {"micro_batches": exception.micro_batches, "sequences": sequences})

    def _record(self, trainer: L.Trainer, row: dict[str, Any]) -> None:
        when = {"time": time.strftime("%Y-%m-%d %H:%M:%S")}
        ConsoleLogger.of(trainer).complain("faults.jsonl", self.lines.append_row(when | row))


def _sequences(trainer: L.Trainer, fault: NonFiniteLossError) -> list[tuple[int, str, int, int]]:
    """Return (index in the run, source, epoch, sequence) of all sequences that may have caused a fault."""
    order: Any = trainer.datamodule.order  # type: ignore[attr-defined]
    of_rank = order.global_batch // trainer.world_size
    micro_batch = of_rank // trainer.accumulate_grad_batches
    first = fault.step * order.global_batch
    starts = [first + rank * of_rank + micro * micro_batch for rank, micro in fault.micro_batches]
    places = [start + n for start in starts for n in range(micro_batch)] or range(first, first + order.global_batch)
    return [(place, *order.locate(place)) for place in places]
