"""A loaded model that continues prompts and conversations, with generation settings that can be changed."""

import json
from collections.abc import Iterator
from typing import Any

from gpt_lightning.convert import load_model
from gpt_lightning.device_and_precision import choose_device
from gpt_lightning.generation import Sampling, stream_generated_text
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import Message, Tokenizer
from running.config.command_configs import GenerateConfig
from running.training.find_tokenizer import load_model_tokenizer

_SETTINGS = ("temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens", "seed")


class ModelTextGenerator:
    """A model with tokenizer and generation settings.

    Args:
        config: settings of generate.py.

    Raises:
        ValueError: the model cannot be read, its vocabulary is smaller than the tokenizer's, or a setting is wrong.
    """

    def __init__(self, config: GenerateConfig) -> None:
        self._use(**{key: getattr(config, key) for key in _SETTINGS})
        run = config.run
        self.model: GPT = load_model(run)
        self.tokenizer: Tokenizer = load_model_tokenizer(run, config.tokenizer.name)
        self.stop_ids = _stop_ids(self.tokenizer, config.stop)
        if config.mode == "chat":
            self.tokenizer.encode_chat_prompt([])  # raises if the tokenizer has no chat tokens
        if self.model.config.vocab_size < self.tokenizer.vocab_size:
            raise ValueError(
                f"{run} has a vocabulary of {self.model.config.vocab_size}, smaller than the "
                f"{self.tokenizer.vocab_size} tokens of tokenizer {self.tokenizer.name}: set the model's own tokenizer "
                "with tokenizer.name=…."
            )
        self.model.to(choose_device("auto"))

    def change(self, name: str, value: str) -> None:
        """Change a generation setting.

        Args:
            name: name of the setting.
            value: the value as JSON; none stands for null.

        Raises:
            ValueError: there is no such setting, or the value is invalid. The settings then stay unchanged.
        """
        if name not in self.settings:
            raise ValueError(f"there is no setting {name!r}: the settings are {', '.join(self.settings)}.")
        try:
            self._use(**{**self.settings, name: json.loads("null" if value == "none" else value)})
        except (ValueError, TypeError) as error:
            reason = f"{value!r} is not a number" if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"{name} stays {self.settings[name]}: {reason}") from error

    def continue_text(self, prompt: str) -> Iterator[str]:
        """Yield the continuation of `prompt`, piece by piece.

        Args:
            prompt: the text to continue.
        """
        return self._stream([self.tokenizer.eot_id, *self.tokenizer.encode(prompt)])

    def answer(self, conversation: list[Message]) -> Iterator[str]:
        """Yield the assistant's next turn, piece by piece. If the context is full, the oldest turns are dropped.

        Args:
            conversation: turns, ending with the user's.
        """
        max_seq_len = self.model.config.max_seq_len
        room = max_seq_len - min(self.max_new_tokens, max_seq_len // 2)
        recent = conversation
        while len(recent) > 1 and len(self._chat_ids(recent)) > room:
            recent = recent[2:]  # drop the oldest question and its answer
        return self._stream(self._chat_ids(recent))

    def _use(self, *, max_new_tokens: Any, seed: Any, **others: Any) -> None:
        """Check generation settings, and use them from now on.

        Raises:
            ValueError: a setting is out of range.
        """
        if type(max_new_tokens) is not int or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens!r}: it must be a whole number, 1 or more.")
        if type(seed) is not int:
            raise ValueError(f"seed is {seed!r}: it must be a whole number.")
        self.sampling = Sampling(seed=seed, **others)
        self.max_new_tokens: int = max_new_tokens
        self.settings: dict[str, Any] = {**others, "max_new_tokens": max_new_tokens, "seed": seed}

    def _chat_ids(self, conversation: list[Message]) -> list[int]:
        return [self.tokenizer.eot_id, *self.tokenizer.encode_chat_prompt(conversation)]

    def _stream(self, ids: list[int]) -> Iterator[str]:
        return stream_generated_text(
            self.model, self.tokenizer, ids, self.max_new_tokens, sampling=self.sampling, stop_ids=self.stop_ids
        )


def _stop_ids(tokenizer: Tokenizer, further: list[str]) -> list[int]:
    ids = list(tokenizer.special_ids.values())
    for text in further:
        spelled = [tokenizer.special_ids[text]] if text in tokenizer.special_ids else tokenizer.encode(text)
        if len(spelled) != 1:
            raise ValueError(
                f"stop: '{text}' is not a single token of tokenizer {tokenizer.name}; its special tokens are "
                f"{', '.join(tokenizer.special_ids)}."
            )
        ids += spelled
    return ids
