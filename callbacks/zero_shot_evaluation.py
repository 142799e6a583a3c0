"""Evaluate a multiple-choice task, such as HellaSwag, at regular steps."""

from typing import Any

import lightning as L

from callbacks.step_callback import StepCallback, log_metrics
from callbacks.throughput import Throughput
from gpt_lightning.evaluation import QuestionsConfig, Score, group_request_indices, score_batch
from gpt_lightning.evaluation.log_likelihood_tasks import ScoredTask, TaskDescription, question_task, read_questions
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger
from gpt_lightning.sharding import unsharded_model

_BATCH_TOKENS = 8192  # tokens per batch


class ZeroShotEvaluation(StepCallback):
    """Log `zero_shot/<task>_<protocol>_<questions>_every_<every>/<metric>`.

    The questions are always the same, spread evenly over the task. Rank 0 evaluates them while the other ranks wait.

    Args:
        every: Number of steps between evaluations.
        name: Name of the task.
        questions: Number of questions.
        task: The task; in a config, the content of conf/task/<name>.yaml.
        path: File with the task's records; None: read them from the hub.

    Raises:
        ValueError: `every` or `questions` is not a positive number.
    """

    def __init__(
        self,
        *,
        every: int,
        name: str,
        questions: int,
        task: QuestionsConfig,
        path: str | None = None,
    ) -> None:
        super().__init__(every=every)
        if not isinstance(questions, int) or questions < 1:
            raise ValueError(
                f"callbacks: questions is {questions!r} for {name}: it must be a number of questions, 1 or more."
            )
        self._name, self._n_questions, self._task, self._path = name, questions, task, path
        self._opened: ScoredTask | None = None

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Read the questions before anything is written.

        Raises:
            ValueError: The records cannot be read, or form no questions.
        """
        if self._opened is not None or not trainer.is_global_zero:
            return
        from data_modules.corpora import open_task_records  # pyarrow is slow to import

        rows, origin = open_task_records(self._path, self._task.hub)
        questions, left_out = read_questions(rows, self._task, limit=self._n_questions)
        self._opened = question_task(
            TaskDescription(name=self._name, protocol=self._task.protocol, data=origin, left_out=left_out),
            questions,
            trainer.datamodule.tokenizer,  # type: ignore[attr-defined]
            max_seq_len=pl_module.model.config.max_seq_len,
        )

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        module.settle()
        with Throughput.paused(trainer):
            model = unsharded_model(module.model, keep=trainer.is_global_zero)
            if model is None or self._opened is None:
                return
            requests = self._opened.requests
            scores: dict[int, Score] = {}
            for group in group_request_indices(requests, batch_tokens=_BATCH_TOKENS):
                scores |= zip(group, score_batch(model, [requests[n] for n in group]), strict=True)
            figures = self._opened.figures([scores[n] for n in range(len(requests))])
            prefix = f"zero_shot/{self._name}_{self._task.protocol}_{figures['acc'].n}_every_{self.every}"
            log_metrics(trainer, {f"{prefix}/{metric}": figure.value for metric, figure in figures.items()})
            accuracy = figures["acc"]
            ConsoleLogger.of(trainer).note(
                f"  {self._name} ({self._task.protocol}): acc {accuracy.value:.3f}, 95 % interval "
                f"{accuracy.low:.3f} to {accuracy.high:.3f} ({accuracy.n:,} questions)",
                style="green",
            )
