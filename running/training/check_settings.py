"""Check everything about a run that the settings and the device determine, for train.py, plan.py and verify.py.

No data is read, nothing is written and no model is built. Lightning is imported only to build callbacks whose settings
cannot be checked otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from analysis.hours_and_loss_from_sizes import Device
from gpt_lightning.device_and_precision import check_compiler, choose_precision, precision_dtype
from gpt_lightning.model import GPT
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.attention_selection import choose_backend, gpu_obstacle
from gpt_lightning.model.loss_kernels import choose_loss_kernel
from gpt_lightning.model.part_registry import BACKENDS
from running.config.callback_configs import are_fully_checked
from running.config.run_config import RunConfig
from running.training.builders import (
    build_optimizer,
    build_parameter_groups,
    build_schedule,
)
from running.training.callback_builders import build_callbacks
from running.training.rank_checks import check_gpu_count, check_sharding

if TYPE_CHECKING:
    import lightning as L


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Device and kernels that compute a model."""

    device: str
    """cpu or cuda."""
    attention: str
    loss: str
    described: str
    """Device, precision and kernels, each with the reason for the choice."""


@dataclass(frozen=True, kw_only=True)
class CheckedSettings:
    """Settings that are valid and fit together, and values that follow from the settings alone."""

    config: RunConfig
    """Settings of the run. The precision is not `auto` any more."""
    schedule: Callable[[int], float]
    """Step -> fraction of the peak learning rate."""
    make_optimizer: Callable[..., Any]
    make_groups: Callable[[GPT], list[dict[str, Any]]]
    kernels: Kernels | None
    """None: the run is planned for a GPU that this machine need not have."""
    callbacks: "list[L.Callback] | None"
    """The callbacks of the config; None: the callbacks are valid without having been built."""


def check_settings(config: RunConfig, device: str, *, planned: Device | None = None) -> CheckedSettings:
    """Check the settings of a run.

    Args:
        config: config of the run.
        device: cpu or cuda.
        planned: the type of GPU that the run is planned for. Then the GPUs, compilers and packages of this machine do
            not matter. None: the run is trained on this machine.

    Raises:
        ValueError: a setting is wrong, settings contradict each other, or this machine lacks what the settings need.
    """
    if planned is None:
        precision, why = choose_precision(config.trainer.precision, device=device)
    else:
        precision, why = _planned_precision(config.trainer.precision, planned), "as planned"
    config = config.with_precision(precision)  # it changes the run's results
    if planned is None and device == "cuda":
        check_gpu_count(config.trainer.devices)
    check_sharding(config)
    _check_deterministic(config)
    schedule = build_schedule(config)
    make_optimizer = build_optimizer(config.optimizer, precision)
    if planned is not None:
        _check_attention(config)
    kernels = _choose_kernels(config, device, why) if planned is None else None
    return CheckedSettings(
        config=config,
        schedule=schedule,
        make_optimizer=make_optimizer,
        make_groups=build_parameter_groups(config),
        kernels=kernels,
        callbacks=None if are_fully_checked(config.callbacks) else build_callbacks(config.callbacks),
    )


def _check_deterministic(config: RunConfig) -> None:
    """Check that the attention backend is deterministic if `trainer.deterministic` is set.

    Raises:
        ValueError: it is not.
    """
    attention = config.model.attention
    if config.trainer.deterministic and attention != "auto" and not BACKENDS[attention].traits.deterministic:
        raise ValueError(
            f"model.attention={attention} cannot be used with trainer.deterministic=true: its backward pass is not "
            "known to be deterministic. Set model.attention=auto."
        )


def _planned_precision(wanted: str, planned: Device) -> str:
    """Lightning's name for the precision on a planned GPU."""
    if wanted == "auto":
        return "bf16-mixed" if planned.has_bf16 else "16-mixed"
    return choose_precision(wanted, device="cuda")[0]


def _check_attention(config: RunConfig) -> None:
    """Check that some GPU can compute the attention backend with the settings of the run.

    Raises:
        ValueError: no GPU can.
    """
    model, dtype = config.model, precision_dtype(config.trainer.precision)
    if model.attention == "auto":
        return
    obstacle = gpu_obstacle(model.attention, dtype, model.d_head, _attention_mask(config), dropout=model.dropout)
    if obstacle:
        raise ValueError(f"model.attention={model.attention} cannot run: {obstacle}. Set model.attention=auto.")


def _attention_mask(config: RunConfig) -> AttentionMask:
    length = config.model.max_seq_len
    documents = None if config.model.attend_across_documents else torch.zeros(1, length, dtype=torch.int64)
    return AttentionMask(length, length, first=documents)


def _choose_kernels(config: RunConfig, device: str, why_precision: str) -> Kernels:
    """Attention backend and loss kernel for this device.

    Raises:
        ValueError: a requested kernel cannot run here, or the compiler is missing.
    """
    model, precision = config.model, config.trainer.precision
    attention, because = choose_backend(
        model.attention,
        torch.device(device),
        precision_dtype(precision),
        model.d_head,
        _attention_mask(config),
        dropout=model.dropout,
    )
    if model.attention not in (attention, "auto"):
        raise ValueError(f"model.attention={model.attention} cannot run: {because}. Set model.attention=auto.")
    loss, loss_because = choose_loss_kernel(config.trainer.loss_kernel, torch.device(device))
    if config.trainer.compile:
        check_compiler(device)
    described = f"{device}, {precision} ({why_precision}), attention {attention} ({because}), loss kernel {loss} ({loss_because})"
    return Kernels(device=device, attention=attention, loss=loss, described=described)
