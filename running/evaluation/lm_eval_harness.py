"""Run a model of ours under lm-evaluation-harness (the extra `harness`), which has its own tasks.

    python -m running.evaluation.lm_eval_harness run --model gpt_lightning \\
        --model_args run=runs/quickstart --tasks lambada_openai

This is the harness's own command line with our models registered. gpt_lightning.evaluation computes all scores.
`--apply_chat_template` writes prompts in ChatML. The `--gen_kwargs` in `_GENERATION` are applied. Other
`--gen_kwargs` are refused.
"""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import torch
from lm_eval import utils
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from gpt_lightning.console import say
from gpt_lightning.convert import load_model
from gpt_lightning.convert.tokenizer_files import CHATML
from gpt_lightning.device_and_precision import choose_device
from gpt_lightning.evaluation import Request, Score, group_request_indices, score_batch
from gpt_lightning.evaluation.log_likelihood import truncate_to_context
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.tokenizer.base import CHAT_END, CHAT_START
from running.config import compose
from running.training.find_tokenizer import load_model_tokenizer

_log = logging.getLogger(__name__)
_GENERATION = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty")
_MARKS = re.compile(f"({re.escape(CHAT_START)}|{re.escape(CHAT_END)})")


@register_model("gpt_lightning")
class HarnessModel(TemplateLM):
    """A model with the interface of the harness.

    Args:
        run: a run directory, a checkpoint or a converted folder.
        tokenizer: gpt2, gpt2_chatml or a tokenizer.json; None: the tokenizer that the model was trained with.
        batch_tokens: tokens per forward pass. (The harness's batch size counts texts of any length and is ignored.)
        device: cpu or cuda; None: chosen automatically.

    Raises:
        ValueError: the model does not exist, or the model's tokenizer is not known.
    """

    def __init__(
        self, run: str, tokenizer: str | None = None, batch_tokens: int = 8192, device: str | None = None, **_: Any
    ) -> None:
        super().__init__()
        here = choose_device("auto")  # the harness asks for cuda by default, even without a GPU
        self._device = torch.device(device if device and (here == "cuda" or device == "cpu") else here)
        self.model = load_model(Path(run)).to(self._device)
        self.tokenizer = load_model_tokenizer(Path(run), tokenizer)
        self._batch_tokens = int(batch_tokens)
        self.max_length = self.model.config.max_seq_len

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eot_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text. In a chat written by `apply_chat_template`, ChatML's marks become special tokens."""
        if CHAT_START not in self.tokenizer.special_ids or not string.startswith(CHAT_START):
            return self.tokenizer.encode(string)
        special = self.tokenizer.special_ids
        parts = ([special[part]] if part in special else self.tokenizer.encode(part) for part in _MARKS.split(string))
        return [token_id for part in parts for token_id in part]

    @property
    def tokenizer_name(self) -> str:
        """Name under which the harness caches its requests."""
        return f"{self.tokenizer.name}__{self.tokenizer.fingerprint[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The ChatML template, the only one.

        Args:
            chat_template: whether to use ChatML; the harness may also give a name.

        Raises:
            ValueError: another template is requested, or the tokenizer has no chat tokens.
        """
        if isinstance(chat_template, str):
            raise ValueError(
                f"there is no chat template {chat_template!r}: use --apply_chat_template without a name for ChatML."
            )
        if CHAT_START not in self.tokenizer.special_ids:
            raise ValueError(
                f"tokenizer '{self.tokenizer.name}' has no chat tokens: leave out --apply_chat_template, or use a "
                "model that was trained with gpt2_chatml or with a BPE tokenizer of this program."
            )
        return CHATML if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation in ChatML.

        The text ends with the start of an assistant's turn, or without the end mark of the last turn.
        """
        self.chat_template(True)
        turns = (f"{CHAT_START}{turn['role']}\n{turn['content']}{CHAT_END}\n" for turn in chat_history)
        text = "".join(turns)
        return f"{text}{CHAT_START}assistant\n" if add_generation_prompt else text.removesuffix(f"{CHAT_END}\n")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        windows: list[Request] = []
        counts = []
        for (text,) in (request.args for request in requests):
            pairs = utils.get_rolling_token_windows(
                self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            new = [
                Request([*context, *scored], len(context)) for context, scored in map(utils.make_disjoint_window, pairs)
            ]
            windows += new
            counts.append(len(new))
        scores = iter(self._score(windows, disable_tqdm))
        return [-sum(next(scores).nats for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue the context of each request.

        Each request has its own seed, so repeats of a prompt give other samples.
        """
        asked = [
            (context, _sampling(how, seed=number)) for number, (context, how) in enumerate(r.args for r in requests)
        ]
        shown = tqdm(asked, disable=disable_tqdm, desc="writing")
        return [self._write(context, *how) for context, how in shown]

    def _write(self, context: str, most: int, ends: list[str], sampling: Sampling) -> str:
        """The continuation of a context, up to the first of the stop texts.

        A context that does not fit loses its beginning.

        Raises:
            ValueError: the requested number of tokens leaves no room for the context.
        """
        room = self.max_length - most
        if room < 1:
            raise ValueError(
                f"the task asks for {most} new tokens, but the model's context is only {self.max_length}: ask for fewer with "
                "--gen_kwargs max_gen_toks=…."
            )
        special = self.tokenizer.special_ids
        (new,) = generate(
            self.model,
            [self.tok_encode(context)[-room:] or [self.eot_token_id]],
            most,
            sampling=sampling,
            stop_ids=[self.eot_token_id, *([special[CHAT_END]] if CHAT_END in special else [])],
            vocab_size=self.tokenizer.vocab_size,
        )
        text = self.tokenizer.decode(new)
        for end in ends:
            text = text.partition(end)[0] if end else text
        return text

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        # a context of white space has no tokens
        texts = [(context or [self.eot_token_id], answer) for _, context, answer in requests]
        put = [Request([*context, *answer], len(context)) for context, answer in texts]
        if cut := sum(len(request.ids) > self.max_length + 1 for request in put):
            _log.warning(
                "%d of %d requests are longer than the window of %d tokens: their beginnings are cut off",
                *(cut, len(put), self.max_length),
            )
        scores = self._score([truncate_to_context(request, self.max_length) for request in put], disable_tqdm)
        return [(-score.nats, score.is_greedy) for score in scores]

    def _score(self, requests: list[Request], disable_tqdm: bool) -> list[Score]:
        scores: dict[int, Score] = {}
        for group in tqdm(
            group_request_indices(requests, batch_tokens=self._batch_tokens), disable=disable_tqdm, desc="scoring"
        ):
            scores |= zip(group, score_batch(self.model, [requests[n] for n in group]), strict=True)
        return [scores[n] for n in range(len(requests))]


def _sampling(how: dict[str, Any], *, seed: int) -> tuple[int, list[str], Sampling]:
    """(maximum number of new tokens, stop texts, sampling settings) of a request.

    Raises:
        ValueError: a requested setting cannot be applied.
    """
    asked: dict[str, Any] = dict(normalize_gen_kwargs(how))
    if asked.get("num_beams") == 1:
        del asked["num_beams"]
    if unknown := sorted(set(asked) - set(_GENERATION)):
        raise ValueError(f"--gen_kwargs {', '.join(unknown)} cannot be applied: use {', '.join(_GENERATION)}.")
    top_k, top_p = asked.get("top_k") or None, asked.get("top_p")
    if (top_k or top_p) and not {"do_sample", "temperature"} & set(how):
        raise ValueError(
            "--gen_kwargs top_k and top_p need do_sample=true or a temperature; otherwise generation is greedy."
        )
    temperature = float(asked.get("temperature", 1.0 if asked["do_sample"] else 0.0))
    penalty = asked.get("repetition_penalty", 1.0)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty, seed=seed)
    return asked["max_gen_toks"], asked["until"], sampling


if __name__ == "__main__":
    # some of the tasks import the library `evaluate`, which our script evaluate.py would shadow
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != compose.CONF.parent]
    try:
        cli_evaluate()
    except ValueError as error:
        say(f"error: {error}", error=True)
        sys.exit(1)
