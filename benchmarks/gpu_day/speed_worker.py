"""The process of one contestant: it builds, compiles and warms up, then trains steps on request."""

import time
from typing import Any

import torch

from benchmarks.gpu_day.json_subprocess import argument, give, questions
from benchmarks.gpu_day.result_rows import describe_error
from benchmarks.gpu_day.speed_candidates import Contestant, build, tokens

_WARM_UP = 3  # steps that are not counted


class Loop:
    """A bare training loop, the same for all: autocast, backward, clipping, optimizer step."""

    def __init__(self, row: dict[str, Any], shape: dict[str, int], *, device: str, nanogpt: str | None) -> None:
        self.device = device
        self.dtype = torch.float16 if row.get("precision") == "16-mixed" else torch.bfloat16
        ids = tokens(row, shape, device)
        self._ids, self._targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        self.contestant: Contestant = build(row, shape, self._ids, nanogpt=nanogpt)
        self._scaler = torch.amp.GradScaler(device, enabled=self.dtype == torch.float16)
        self.loss = 0.0

    def run(self, steps: int) -> float:
        """Train for some steps; return the seconds."""
        model, loss, optimizer, *_ = self.contestant
        begin = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(self.device, dtype=self.dtype, cache_enabled=False):
                value = loss(model, self._ids, self._targets)
            self._scaler.scale(value).backward()
            self._scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            self._scaler.step(optimizer)
            self._scaler.update()
            optimizer.zero_grad()
        self.loss = value.item()  # waits for the device
        return time.perf_counter() - begin


def main(given: dict[str, Any]) -> None:
    """Answer once when ready, then answer each question `{"steps": n}` with the seconds."""
    device = given["device"]
    torch.backends.cuda.enable_cudnn_sdp(not given["rehearse"])
    try:
        loop = Loop(given["row"], given["shape"], device=device, nanogpt=given["nanogpt"])
        compile_seconds = loop.run(1)
        loop.run(_WARM_UP)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        loop.run(1)
        peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
        _free(device)
    except Exception as error:
        give({"error": describe_error(error)})
        return
    contestant = loop.contestant
    give(
        {
            "first_step_seconds": compile_seconds,
            "mb": peak,
            "loss": loop.loss,
            "flops_per_token": contestant.flops_per_token,
            **contestant.chose,
        }
    )
    for question in questions():
        loop.run(_WARM_UP)
        give({"seconds": loop.run(question["steps"])})
        _free(device)


def _free(device: str) -> None:
    """Release cached memory for the other contestants."""
    if device == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(argument())
