"""Generate samples at regular steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L

from callbacks.step_callback import StepCallback
from callbacks.throughput import Throughput
from gpt_lightning.console import escape_control_characters
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.loggers.jsonl_file import JsonlFile
from gpt_lightning.loggers.tensorboard import TensorBoard
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger
from gpt_lightning.model import GPT
from gpt_lightning.sharding import unsharded_model
from gpt_lightning.tokenizer import Message


class Samples(StepCallback):
    """Continue fixed prompts, with separate random numbers, and write to samples.jsonl, the terminal and TensorBoard's
    text tab.

    Args:
        every: Number of steps between samples.
        prompts: Texts to continue.
        chat_prompts: Messages of a user, which the model answers as the assistant.
        max_new_tokens: Maximum length of a sample, in tokens.
        temperature: Divides the logits; 0 takes the most likely token each time.
        top_k: Draw only from the k most likely tokens; None: from all.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        *,
        every: int,
        prompts: list[str],
        chat_prompts: list[str],
        max_new_tokens: int,
        temperature: float,
        top_k: int | None,
    ) -> None:
        super().__init__(every=every)
        for name, texts in (("prompts", prompts), ("chat_prompts", chat_prompts)):
            if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
                raise ValueError(f"callbacks.samples.{name} is {texts!r}: it must be a list of non-empty strings.")
        if max_new_tokens < 1:
            raise ValueError(f"callbacks.samples.max_new_tokens is {max_new_tokens}: it must be 1 or more.")
        self._prompts = prompts
        self._chat_prompts = chat_prompts
        self._max_new_tokens = max_new_tokens
        try:
            self._sampling = Sampling(temperature=temperature, top_k=top_k)
        except ValueError as error:
            raise ValueError(f"callbacks.samples.{error}") from error
        self.lines = JsonlFile(Path())

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.lines = JsonlFile(Path(trainer.default_root_dir) / "samples.jsonl")

    def on_step(self, trainer: L.Trainer, module: Any) -> None:
        module.settle()
        with Throughput.paused(trainer):
            model = unsharded_model(module.model, keep=trainer.is_global_zero)
            if model is not None:
                self._sample(trainer, model)

    def _sample(self, trainer: L.Trainer, model: GPT) -> None:
        step, tokenizer = trainer.global_step, trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        ids = [[tokenizer.eot_id, *tokenizer.encode(prompt)] for prompt in self._prompts]
        ids += [
            [tokenizer.eot_id, *tokenizer.encode_chat_prompt([_asked(question)])] for question in self._chat_prompts
        ]
        answers = generate(
            model,
            [
                prompt[-model.config.max_seq_len :] for prompt in ids
            ],  # shorten, because a callback must not stop the run
            stop_ids=list(tokenizer.special_ids.values()),
            vocab_size=tokenizer.vocab_size,
            max_new_tokens=self._max_new_tokens,
            sampling=replace(self._sampling, seed=step),
        )
        terminal = ConsoleLogger.of(trainer)
        responses: list[tuple[str, str]] = []
        for n, (prompt, answer) in enumerate(zip(self._prompts + self._chat_prompts, answers, strict=True)):
            response = tokenizer.decode(answer)
            row = {"step": step, "prompt": prompt, "chat": n >= len(self._prompts), "response": response}
            terminal.complain("samples.jsonl", self.lines.append_row(row))
            responses.append((prompt, response))
            text = escape_control_characters(f"{prompt}→{response}").replace(
                "\n", "\n    "
            )  # an indented code block, so that TensorBoard does not interpret Markdown
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoard):
                    logger.write("add_text", f"samples/{escape_control_characters(prompt)}", f"    {text}", step)
        terminal.samples(step, responses)


def _asked(question: str) -> Message:
    return {"role": "user", "content": question}
