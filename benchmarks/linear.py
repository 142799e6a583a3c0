"""Matrix products without gradients on a CPU: `fast_linear` against torch."""

import torch
import torch.nn.functional as F

from benchmarks.machine import AddedMemory, median_seconds
from gpt_lightning.model.cpu_linear import fast_linear


def measure(who: str, *, tokens: int, d_in: int, d_out: int) -> dict[str, float]:
    """Median milliseconds of one product in fp32, and the added megabytes at the peak.

    Args:
        who: ours or torch.
        tokens: rows of the input.
        d_in: columns of the input.
        d_out: columns of the output.
    """
    torch.manual_seed(0)
    x, weight = torch.randn(tokens, d_in), torch.randn(d_out, d_in)
    multiply = {"ours": fast_linear, "torch": F.linear}[who]
    memory = AddedMemory()
    with torch.inference_mode():
        seconds = median_seconds(lambda: multiply(x, weight), times=50)
    return {"ms": 1e3 * seconds, "mb": memory.mb()}
