"""Parameter groups: weight decay, Muon's matrices, and learning rates that depend on the width of the model."""

from collections.abc import Iterator
from math import sqrt
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def parameter_groups(model: nn.Module, *, muon: bool = False, base_width: int | None = None) -> list[dict[str, Any]]:
    """Divide the parameters of a model into groups for an optimizer.

    Matrices and embeddings have the optimizer's weight decay; biases and norms have none.

    Args:
        model: A GPT.
        muon: Put the matrices of the blocks into separate groups, marked for `MuonAdamW`, one group per `stacked`.
        base_width: The d_model for which the learning rate was tuned. The matrices of the blocks then form separate
            groups with an `lr_multiplier`; see `apply_lr_multipliers_once`. None: no multipliers.

    Returns:
        Parameter groups as torch.optim takes them.
    """
    hidden = dict(_hidden(model, muon=muon, base_width=base_width))
    groups: dict[str, dict[str, Any]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            options = hidden.get(parameter, {} if parameter.dim() >= 2 else {"weight_decay": 0.0})
            groups.setdefault(str(options), {"params": [], **options})["params"].append(parameter)
    return list(groups.values())


def apply_lr_multipliers_once(optimizer: Optimizer) -> None:
    """Apply each `lr_multiplier` to the learning rate of its group, without changing the weight decay per step."""
    for group in optimizer.param_groups:
        if "lr_multiplier" in group:
            group["lr"] *= group["lr_multiplier"]
            group["weight_decay"] /= group["lr_multiplier"]


def _hidden(model: Any, *, muon: bool, base_width: int | None) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yield (matrix, options) of every matrix of the blocks.

    The effect of an update on the activations grows with the number of columns, over which it is summed. AdamW's
    updates have the same size per element for every width, so the learning rate must scale as 1 / width
    (arXiv:2203.03466). Muon's updates do too, but they are orthogonal and so add up less: the learning rate scales as 1
    / sqrt(width).
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
