"""Sizes of a model, computed from the model itself on torch's meta device, which stores shapes but no data."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gpt_lightning.model.config import GPTConfig
from gpt_lightning.model.gpt import GPT


def build_meta_model(config: GPTConfig) -> GPT:
    """Build the model on the meta device."""
    with torch.device("meta"), _SkipInitialization():
        return GPT(config)


class _SkipInitialization(TorchFunctionMode):
    """Skip weight initialisation. On the meta device, torch would import its compiler for it, which takes seconds."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function in (Tensor.normal_, Tensor.uniform_) or getattr(function, "__module__", "") == "torch.nn.init":
            return arguments[0] if arguments else options["tensor"]
        return function(*arguments, **options)


def multiplied_parameters(model: GPT) -> list[Tensor]:
    """Return the parameters by which each token is multiplied, including biases, gains and a tied head.

    Tables in which a token only looks up a row are excluded: embeddings that are not also the head, and matrices of the
    positions that belong to no linear layer.
    """
    in_products = {layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)}
    tables = {layer.weight for layer in model.modules() if isinstance(layer, nn.Embedding)}
    tables |= {parameter for parameter in model.positions.parameters() if parameter.dim() >= 2}
    return [parameter for parameter in model.parameters() if parameter not in tables - in_products]


def flops_per_token(model: GPT) -> int:
    """Return the FLOPs of training per token, forward and backward: 6 N + 12 n_layers d_model T (PaLM,
    arXiv:2204.02311).

    A product with a weight is 2 FLOPs, and the backward pass computes two such products per product of the forward
    pass. N is the number of `multiplied_parameters`, T is max_seq_len. As is customary, the masked half of attention
    counts.
    """
    config = model.config
    attention = 12 * config.n_layers * config.d_model * config.max_seq_len
    return 6 * sum(parameter.numel() for parameter in multiplied_parameters(model)) + attention
