"""Context manager for evaluation: eval mode, no gradients, not compiled."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run a model without dropout, gradients and compilation. (Compiled blocks would be recompiled for each length.)"""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if was_training:
            model.train()
