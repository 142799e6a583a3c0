"""Greedy generation by one contestant from the same weights: tokens per second, and the tokens."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import AddedMemory, memory_bandwidth
from gpt_lightning.convert import to_hf
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.model import GPT, GPTConfig
from running.config.compose import compose_config

PROMPT_TOKENS = 32
BLOCK_SCALE = 4.0


def measure(who: str, *, model: str, batch: int, new_tokens: int) -> dict[str, Any]:
    """Tokens per second of the whole batch in fp32, including the prompts, the better of two calls.

    Args:
        who: ours or transformers.
        model: a choice of conf/model; its weights are random, and the same for both contestants.
        batch: number of prompts, of 32 tokens each.
        new_tokens: tokens to generate per prompt.

    Returns:
        tokens_per_second; mb, added memory at the peak; ids, the tokens of every answer; for ours also
        share_of_bandwidth, relative to reading every weight once for each token of the batch after the prompt.
    """
    ours = random_model(model)
    prompts = torch.randint(0, ours.config.vocab_size, (batch, PROMPT_TOKENS)).tolist()
    if who == "transformers":
        call = transformers_generation(ours, prompts, new_tokens)
    else:
        call = partial(generate, ours, prompts, new_tokens, sampling=Sampling(temperature=0))
    memory = AddedMemory()
    answers, seconds = _timed(call)
    result = {"tokens_per_second": batch * new_tokens / seconds, "mb": memory.mb(), "ids": answers}
    if who == "ours":
        _, seconds_of_first = _timed(partial(generate, ours, prompts, 1, sampling=Sampling(temperature=0)))
        bytes_per_second = _bytes_per_token(ours) * (new_tokens - 1) / (seconds - seconds_of_first)
        result["share_of_bandwidth"] = bytes_per_second / memory_bandwidth()
    return result


def random_model(name: str) -> GPT:
    """A model with random weights, large enough that greedy generation does not only repeat the last token."""
    torch.manual_seed(0)
    tokenizer = "bpe_4096" if name == "micro" else "gpt2"
    config = compose_config("train", [f"model={name}", "model.dropout=0", f"tokenizer={tokenizer}"])["model"]
    model = GPT(GPTConfig(**config)).eval()
    with torch.no_grad():
        for block in model.blocks:
            for parameter in block.parameters():
                parameter.mul_(BLOCK_SCALE if parameter.dim() > 1 else 1.0)
    return model


def transformers_generation(
    ours: GPT, prompts: list[list[int]], new_tokens: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[], list[list[int]]]:
    """A function that generates with the same weights in transformers."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        to_hf(ours, Path(folder) / "model", format="gpt2" if ours.config.position == "learned" else "llama")
        theirs = AutoModelForCausalLM.from_pretrained(Path(folder) / "model").eval()
    for parameter in theirs.parameters():
        parameter.data = parameter.data.clone()  # copied out of the mapped file, as ours are
    theirs.to(device, dtype)
    ids = torch.tensor(prompts, device=device)
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}

    @torch.no_grad()
    def call() -> list[list[int]]:
        answers = theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return [answer[PROMPT_TOKENS:] for answer in answers.tolist()]

    return call


def _timed(call: Any) -> tuple[Any, float]:
    call()  # warm up
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - begin)
    return answer, min(seconds)


def _bytes_per_token(model: GPT) -> int:
    """Bytes of all matrices that a token passes. Of embeddings it reads single rows, unless they are also the head."""
    weights = sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith(("embedding.", "positions."))
    )
    return 4 * (weights + (model.head.weight.numel() if model.config.tie_embeddings else 0))
