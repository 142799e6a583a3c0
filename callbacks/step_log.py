"""Print a line for each logged step, and end the rows of metrics.jsonl."""

import time
from collections.abc import Mapping
from typing import Any

import lightning as L

from callbacks.step_callback import StepCallback, log_metrics
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger

_MEMORY = (
    0.98  # factor by which a step's weight in the smoothed loss decays per step; roughly the mean of the last 50 steps
)
_COLUMNS = 100


class StepLog(StepCallback):
    """Log the metrics of LitGPT and print a line per logged step. This callback must come after all other callbacks
    that log.

    The loss in brackets is smoothed: a weighted mean of all steps so far, in which each step weighs 2 % less than the
    next.

    Args:
        every: Number of steps between lines.
        terminal: Prints the lines.
        metrics_file: Receives the rows.
    """

    def __init__(self, *, every: int, terminal: ConsoleLogger, metrics_file: JsonlMetrics) -> None:
        super().__init__(every=every)
        self.terminal = terminal
        self._metrics_file = metrics_file
        self._began = (0.0, 0)  # (seconds, step) at the start of training
        self._smoothed = [0.0, 0.0]  # sum of weighted losses, sum of weights

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._smooth(pl_module)
        checkpoint["smoothed_loss"] = list(self._smoothed)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._smoothed = list(checkpoint.get("smoothed_loss", self._smoothed))

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._began = (time.perf_counter(), trainer.global_step)
        if trainer.is_global_zero:
            self.terminal.start_progress(done=trainer.global_step, total=trainer.max_steps)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.terminal.advance_progress(trainer.global_step)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        log_metrics(trainer, module.step_metrics())
        self._smooth(module)
        row = self._metrics_file.row
        if not row:  # only rank 0 has a metrics file and prints
            return
        seconds = (time.perf_counter() - self._began[0]) / (trainer.global_step - self._began[1])
        left = seconds * (trainer.max_steps - trainer.global_step)
        smoothed = self._smoothed[0] / self._smoothed[1] if self._smoothed[1] else row["train/loss"]
        self.terminal.note(format_step_line(row, smoothed=smoothed, left=left), style="")

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.terminal.say_in_progress("validating after step")

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.terminal.say_in_progress("step")
        row = self._metrics_file.row
        perplexities = [
            f"{key.removeprefix('val/perplexity/')} {value:.1f}" for key, value in row.items() if "/perplexity/" in key
        ]
        if perplexities:
            self.terminal.note(f"  validation perplexity: {', '.join(perplexities)}", style="green")

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.end_step(trainer)
        self.terminal.stop_progress()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.terminal.stop_progress()

    def _smooth(self, module: Any) -> None:
        for loss in module.take_losses():
            self._smoothed = [_MEMORY * old + new for old, new in zip(self._smoothed, (loss, 1.0), strict=True)]

    def end_step(self, trainer: L.Trainer) -> None:
        """Write the row of the last step."""
        self.terminal.complain("metrics.jsonl", self._metrics_file.end_step(trainer.global_step))


class EndMetricsRow(L.Callback):
    """End the row of a step before any callback logs metrics of the next step. This callback must be the first.

    Args:
        run_log: The run's StepLog.
    """

    def __init__(self, run_log: StepLog) -> None:
        self._run_log = run_log

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._run_log.end_step(trainer)


def format_step_line(row: Mapping[str, float], *, smoothed: float, left: float) -> str:
    """Format the line of a logged step, for 100 columns. If the line would be longer, MFU is omitted.

    Args:
        row: Metrics of the step.
        smoothed: Smoothed loss.
        left: Estimated time until the end of the run, in seconds.
    """
    begin = f"step {row['step']:6d} | loss {_short(row['train/loss'])} ({_short(smoothed)}) | lr {row['train/lr']:.2e}"
    end = f" | {format_seconds(left)} left"
    speed = row.get("speed/tokens_per_s")
    if speed is not None:
        begin += f" | {speed:,.0f} tokens/s" if speed < 1e8 else f" | {speed:.2e} tokens/s"
    mfu = f", MFU {row['speed/mfu']:.1%}" if "speed/mfu" in row else ""
    return begin + (mfu if len(begin + mfu + end) <= _COLUMNS else "") + end


def _short(loss: float) -> str:
    """Format with five digits, or two if it is very large or small."""
    text = f"{loss:#.5g}"
    return f"{loss:.1e}".replace("e+0", "e").replace("e+", "e") if "e" in text else text


def format_seconds(seconds: float) -> str:
    """Format a duration for people, for example `2 h 05 min`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 6000 else f"{hours // 24:,} d {hours % 24} h"
