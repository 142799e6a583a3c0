"""Greedy generation of one contestant from the same weights: tokens per second, and which tokens."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import launch
from benchmarks.machine import memory_bandwidth, peak_mb, resident_mb
from gpt_lightning.convert import to_hf
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.model import GPT, GPTConfig

PROMPT_TOKENS = 32


def measure(who: str, *, model: str, batch: int, new_tokens: int) -> dict[str, Any]:
    """Tokens per second of the whole batch in fp32, reading the prompts included, the better of two.

    Args:
        who: ours or transformers.
        model: a choice of conf/model; its weights are random, and the same for both.
        batch: prompts of 32 tokens each.

    Returns:
        tokens_per_second, mb; the ids of the first prompt; of ours also the share of what memory allows, once the prompt
        is read: every weight is read once for each token of the batch.
    """
    torch.manual_seed(0)
    tokenizer = "bpe_4096" if model == "micro" else "gpt2"
    config = launch.compose_config("train", [f"model={model}", "model.dropout=0", f"tokenizer={tokenizer}"])["model"]
    ours = GPT(GPTConfig(**config)).eval()
    prompts = torch.randint(0, config["vocab_size"], (batch, PROMPT_TOKENS)).tolist()
    if who == "ours":
        before = resident_mb()
        greedy = Sampling(temperature=0)
        answers, seconds = _timed(lambda: generate(ours, prompts, new_tokens, sampling=greedy))
        peak = peak_mb()
        _, seconds_of_first = _timed(lambda: generate(ours, prompts, 1, sampling=greedy))
        tokens_per_second = (new_tokens - 1) / (seconds - seconds_of_first)
        result = {"share_of_bandwidth": _bytes_per_token(ours) * tokens_per_second / memory_bandwidth()}
    else:
        from transformers import AutoModelForCausalLM

        with tempfile.TemporaryDirectory() as folder:
            format = "gpt2" if config["position"] == "learned" else "llama"
            to_hf(ours, Path(folder) / "model", format=format)
            del ours
            theirs = AutoModelForCausalLM.from_pretrained(Path(folder) / "model").eval()
            for parameter in theirs.parameters():
                parameter.data = parameter.data.clone()  # out of the mapped file, as ours are
        before = resident_mb()
        ids = torch.tensor(prompts)
        options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
        mask = torch.ones_like(ids)
        with torch.no_grad():
            answers, seconds = _timed(
                lambda: theirs.generate(ids, attention_mask=mask, **options)[:, PROMPT_TOKENS:].tolist()
            )
        peak, result = peak_mb(), {}
    return result | {
        "tokens_per_second": batch * new_tokens / seconds,
        "mb": peak - before,
        "ids": answers[0],
    }


def _timed(call: Any) -> tuple[Any, float]:
    call()  # warm up
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - begin)
    return answer, min(seconds)


def _bytes_per_token(model: GPT) -> int:
    """All matrices that a token passes; of the embeddings it reads single rows, unless they are the head."""
    weights = sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith(("embedding.", "positions."))
    )
    return 4 * (weights + (model.head.weight.numel() if model.config.tie_embeddings else 0))
