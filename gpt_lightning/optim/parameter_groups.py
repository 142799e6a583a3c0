"""Which parameters decay, which of them Muon trains, and at which rate in a model of another width."""

from collections.abc import Iterator
from math import sqrt
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def parameter_groups(model: nn.Module, *, muon: bool = False, base_width: int | None = None) -> list[dict[str, Any]]:
    """Groups for an optimizer: matrices and embeddings, with the optimizer's own decay; biases and norms, with none.

    Args:
        model: a GPT.
        muon: set the matrices of the blocks apart and mark them for `MuonAdamW`, those that are stacked alike together.
        base_width: the d_model at which the learning rate was found. The matrices of the blocks then stand apart, with an
            `lr_multiplier`; see `apply_multipliers`.
    """
    hidden = dict(_hidden(model, muon=muon, base_width=base_width))
    groups: dict[str, dict[str, Any]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            options = hidden.get(parameter, {} if parameter.dim() >= 2 else {"weight_decay": 0.0})
            groups.setdefault(str(options), {"params": [], **options})["params"].append(parameter)
    return list(groups.values())


def apply_multipliers(optimizer: Optimizer) -> None:
    """Give each group with an `lr_multiplier` its own learning rate, and leave what decays in a step as it is without one."""
    for group in optimizer.param_groups:
        if "lr_multiplier" in group:
            group["lr"] *= group["lr_multiplier"]
            group["weight_decay"] /= group["lr_multiplier"]


def _hidden(model: Any, *, muon: bool, base_width: int | None) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """(matrix, options) of every matrix of the blocks.

    What an update changes in the activations grows with the number of columns that it is summed over. An update of AdamW is as
    large in every entry whatever the width, so its rate must fall as 1 / width (arXiv:2203.03466). One of Muon is as large
    in every entry too, but orthogonal: its columns do not add up as far, and its rate falls as 1 / sqrt(width).
    """
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            options: dict[str, Any] = {}
            if muon:
                options["muon"] = True
                if stacked := getattr(layer, "stacked", ()):
                    options["stacked"] = list(stacked)
            if base_width is not None:
                ratio = base_width / model.config.d_model
                options["lr_multiplier"] = sqrt(ratio) if muon else ratio
            yield layer.weight, options
