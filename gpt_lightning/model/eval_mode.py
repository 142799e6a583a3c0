"""A model as it is, and not as it is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Without dropout or gradients, and uncompiled: compiled blocks would be compiled anew for each length."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if was_training:
            model.train()
