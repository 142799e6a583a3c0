"""A model of ours under lm-evaluation-harness (the extra `harness`), which then asks its own tasks.

    python -m running.harness run --model gpt_lightning --model_args run=runs/quickstart --tasks lambada_openai

is the harness's own command line, which knows our models by then. Everything is scored by gpt_lightning.evaluation.
"""

import logging
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

from gpt_lightning.convert import load_model
from gpt_lightning.evaluation import Request, Score, batches, score
from gpt_lightning.evaluation.scoring import window
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.hardware import choose_device
from running import composing
from running.data_folder import tokenizer_of

_log = logging.getLogger(__name__)


@register_model("gpt_lightning")
class HarnessModel(TemplateLM):
    """A model as the harness asks it.

    Args:
        run: a run directory, a checkpoint or a converted folder.
        tokenizer: gpt2, gpt2_chatml or a tokenizer.json; None: the one the model was trained with.
        batch_tokens: that are read at once. (The harness's batch size counts texts, of any length, and is not heard.)

    Raises:
        ValueError: there is no such model, or its tokenizer is not known.
    """

    def __init__(
        self, run: str, tokenizer: str | None = None, batch_tokens: int = 8192, device: str | None = None, **_: Any
    ) -> None:
        super().__init__()
        here = choose_device("auto")  # the harness asks for cuda by default, also where there is none
        self._device = torch.device(device if device and (here == "cuda" or device == "cpu") else here)
        self.model = load_model(Path(run)).to(self._device)
        self.tokenizer = tokenizer_of(Path(run), tokenizer)
        self._batch_tokens = int(batch_tokens)
        self.max_length = self.model.config.max_seq_len

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eot_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self.tokenizer.encode(string)

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
        """Each request draws from a seed of its own: repeats of one prompt are other samples."""
        shown = tqdm(requests, disable=disable_tqdm, desc="writing")
        return [self._write(*request.args, seed=number) for number, request in enumerate(shown)]

    def _write(self, context: str, how: dict[str, Any], *, seed: int) -> str:
        """What follows a context, before the first of the texts that `how` ends at; its beginning goes where there is no room.

        Raises:
            ValueError: what is to be written leaves no room for a context at all.
        """
        asked = normalize_gen_kwargs(how)
        most, room = asked["max_gen_toks"], self.max_length - asked["max_gen_toks"]
        if room < 1:
            raise ValueError(
                f"{most} tokens are to be written, and the model sees {self.max_length}: ask for fewer, with "
                "--gen_kwargs max_gen_toks=…."
            )
        (new,) = generate(
            self.model,
            [self.tok_encode(context)[-room:] or [self.eot_token_id]],
            most,
            sampling=Sampling(temperature=float(asked.get("temperature", 0.0)), seed=seed),
            stop_ids=[self.eot_token_id],
            vocab_size=self.tokenizer.vocab_size,
        )
        text = self.tokenizer.decode(new)
        for end in asked["until"]:
            text = text.partition(end)[0] if end else text
        return text

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        texts = [
            (context or [self.eot_token_id], answer) for _, context, answer in requests
        ]  # of white space nothing is left
        put = [Request([*context, *answer], len(context)) for context, answer in texts]
        if cut := sum(len(request.ids) > self.max_length + 1 for request in put):
            _log.warning(
                "%d of %d requests are longer than the window of %d tokens: their beginnings are left away",
                *(cut, len(put), self.max_length),
            )
        scores = self._score([window(request, self.max_length) for request in put], disable_tqdm)
        return [(-score.nats, score.is_greedy) for score in scores]

    def _score(self, requests: list[Request], disable_tqdm: bool) -> list[Score]:
        scores: dict[int, Score] = {}
        for group in tqdm(batches(requests, batch_tokens=self._batch_tokens), disable=disable_tqdm, desc="scoring"):
            scores |= zip(group, score(self.model, [requests[n] for n in group]), strict=True)
        return [scores[n] for n in range(len(requests))]


if __name__ == "__main__":
    # some of its tasks want the library `evaluate`, and not the verb of that name that lies here
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != composing.CONF.parent]
    cli_evaluate()
