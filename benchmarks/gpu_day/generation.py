"""Generation of 124M in bf16: a CUDA graph draws the same ids as single launches; speed against transformers."""

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.generation import PROMPT_TOKENS, random_model, transformers_generation
from benchmarks.gpu_day.result_rows import Day
from gpt_lightning.generation import Sampling, cuda_graph_step, generate
from gpt_lightning.model import GPT

BATCHES = (1, 8, 64)


def run(day: Day) -> None:
    torch.backends.cuda.enable_cudnn_sdp(not day.rehearse)
    name, new_tokens = ("micro", 3) if day.rehearse else ("gpt2_124m", 128)
    weights = random_model(name)
    ours = deepcopy(weights).to(day.device, torch.bfloat16)
    day.check("sampled by a CUDA graph", lambda: sampled_by_graph(ours, _prompts(weights, 8), new_tokens, day.rehearse))
    for batch in BATCHES:
        prompts = _prompts(weights, batch)
        call = partial(generate, ours, prompts, new_tokens, sampling=Sampling(temperature=0))
        mine = day.measure(f"ours, batch {batch}", partial(timed, call, batch * new_tokens), seconds=5)
        work = partial(_peer, weights, prompts, new_tokens, day.device)
        theirs = day.measure(f"transformers, batch {batch}", work, seconds=10)
        if mine and theirs:
            ratio = mine["tokens_per_second"] / theirs["tokens_per_second"]
            day.add(f"ours against transformers, batch {batch}", {"value": ratio})


def _prompts(model: GPT, batch: int) -> list[list[int]]:
    ids = torch.randint(0, model.config.vocab_size, (batch, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    return ids.tolist()


def sampled_by_graph(model: GPT, prompts: list[list[int]], new_tokens: int, rehearse: bool) -> dict[str, Any]:
    """Compare ids drawn by a CUDA graph with those of single kernel launches; check that a graph was captured."""
    draw = partial(generate, model, prompts, new_tokens, sampling=Sampling(seed=0))
    graphed = draw()
    captured = not cuda_graph_step._failed
    with patch.object(cuda_graph_step.CudaGraphStep, "_capture", lambda self, step: None):
        launched = draw()
    return {
        "passed": rehearse or (captured and graphed == launched),
        "captured": captured,
        "equal": graphed == launched,
    }


def _peer(weights: GPT, prompts: list[list[int]], new_tokens: int, device: str) -> dict[str, Any]:
    call = transformers_generation(weights, prompts, new_tokens, device=device, dtype=torch.bfloat16)
    return timed(call, len(prompts) * new_tokens)


def timed(call: Callable[[], Any], n_tokens: int) -> dict[str, Any]:
    """Tokens per second, the better of two calls after a warm-up call."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return {"tokens_per_second": n_tokens / min(seconds[1:])}
