"""The loss head, forward and backward, against cross-entropy on whole logits."""

import torch
import torch.nn.functional as F

from benchmarks.machine import AddedMemory, median_seconds
from gpt_lightning.model.loss_head import cross_entropy_sum


def measure(who: str, *, vocab_size: int, d_model: int, tokens: int, precision: str) -> dict[str, float]:
    """Median milliseconds, and the added megabytes at the peak.

    Args:
        who: ours or torch.
        vocab_size: rows of the head's weight.
        d_model: columns of the head's weight.
        tokens: number of hidden states.
        precision: 32-true or bf16-mixed.
    """
    torch.manual_seed(0)
    x = torch.randn(tokens, d_model, requires_grad=True)
    weight = (0.02 * torch.randn(vocab_size, d_model)).requires_grad_()
    targets = torch.randint(0, vocab_size, (tokens,))

    def call() -> None:
        x.grad = weight.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            if who == "ours":
                loss = cross_entropy_sum(x, weight, targets, None).objective / tokens
            else:
                loss = F.cross_entropy(x @ weight.T, targets)
        loss.backward()

    memory = AddedMemory()
    seconds = median_seconds(call, times=5)
    return {"ms": 1e3 * seconds, "mb": memory.mb()}
