"""Muon for the matrices of the blocks and AdamW for all the rest, as one optimizer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer


class MuonAdamW(Optimizer):
    """torch.optim.Muon (arXiv:2502.16982) for the groups marked `muon`, torch.optim.AdamW for the others; see `parameter_groups`.

    Lightning, the gradient scaler, the schedule and a checkpoint know one optimizer: it has one list of groups and one state.
    torch's two do the arithmetic, and are told at each step what they work on, so that there is nothing else to be kept.

    An update of Muon has the root mean square of AdamW's (`adjust_lr_fn="match_rms_adamw"`), so both share learning rate and
    weight decay. Of a group with `stacked`, numbers of rows, each matrix holds several, one below the other: queries, keys and
    values, or gate and up. Each of them gets an update of its own: made orthogonal as one, the update would be
    shared out among them by the sizes of their gradients, which is what orthogonality is to do away with.

    Args:
        params: the groups.
        lr: of both, at its peak.
        momentum: of Muon, which is Nesterov's.
        betas, eps: of AdamW.
        weight_decay: of both.
        fused: of AdamW.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: Sequence[float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        fused: bool = False,
    ) -> None:
        nothing = [torch.zeros(1, 1)]  # an optimizer is not made without a parameter
        self._muon = Muon(nothing, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw")
        first, second = betas
        self._adamw = AdamW(nothing, lr, (first, second), eps, weight_decay, fused=fused)
        super().__init__(params, {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        worker = self._muon if param_group.get("muon") else self._adamw
        super().add_param_group({**worker.defaults, **param_group})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._adamw.param_groups = [group for group in self.param_groups if not group.get("muon")]
        self._adamw.state = self.state
        self._adamw.step()
        for group in self.param_groups:
            if group.get("muon"):
                self._muon_step(group)
        return loss

    def _muon_step(self, group: dict[str, Any]) -> None:
        """A step of torch's Muon on the stacked matrices one by one, which are views: of weights, gradients and momenta."""
        momenta = {matrix: {"momentum_buffer": momentum} for matrix, momentum in self._matrices(group)}
        self._muon.param_groups = [{**group, "params": list(momenta)}]
        self._muon.state.update(momenta)
        self._muon.step()
        self._muon.param_groups = []
        self._muon.state.clear()  # the views would keep the gradients alive

    def _matrices(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each matrix of the group that has a gradient, and its momentum."""
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            rows = group.get("stacked") or [len(weight)]
            for matrix, gradient, momentum in zip(
                weight.detach().split(rows), weight.grad.split(rows), state["momentum_buffer"].split(rows), strict=True
            ):
                matrix.grad = gradient
                yield matrix, momentum
