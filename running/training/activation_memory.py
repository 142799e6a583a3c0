"""Bytes that the forward pass keeps for the backward pass.

Dropout and torch's own norms are counted by formula. Attention, the feed-forward and any other part are measured on the
meta device, so a part that a user registers is measured too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from analysis.hours_and_loss_from_sizes import matmul_number_format
from gpt_lightning.model import GPT
from gpt_lightning.model.attention import AttentionContext
from gpt_lightning.model.attention_backends import Backend
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.attention_selection import expected_backend
from gpt_lightning.model.meta_device_kernels import KernelStandIns, attend_fused
from gpt_lightning.model.part_memory import PartMemory, measure_part
from gpt_lightning.model.part_registry import BACKENDS


@dataclass(frozen=True)
class Arithmetic:
    """Number formats and device of the activations.

    Raises:
        ValueError: the precision is unknown.
    """

    precision: str
    """Lightning's name for the precision."""
    device_type: str
    """cpu or cuda."""
    compiled: bool = False
    """Whether the blocks are compiled."""

    def __post_init__(self) -> None:
        matmul_number_format(self.precision)

    @property
    def is_mixed(self) -> bool:
        return self.precision.endswith("mixed")

    @property
    def on_cpu(self) -> bool:
        return self.device_type == "cpu"

    @property
    def number(self) -> int:
        """Bytes per number in the inputs of matrix products."""
        return 4 if self.precision == "32-true" else 2

    @property
    def stream(self) -> int:
        """Bytes per number in the residual stream and per weight."""
        return 2 if self.precision == "bf16-true" else 4


@dataclass(frozen=True)
class Activations:
    """Bytes per token kept for the backward pass."""

    block: float
    """Kept in each block."""
    ends: float
    """Kept before and after the blocks."""
    attention: PartMemory
    """Memory of the attention of one block, which is included in `block`."""
    feed_forward: PartMemory
    """The same for the feed-forward."""


def activations_per_token(model: GPT, arithmetic: Arithmetic) -> Activations:
    """Activation memory per token of a model on the meta device.

    Args:
        model: the model, on the meta device.
        arithmetic: number formats and device.

    Raises:
        ValueError: the attention backend cannot be measured.
    """
    config, number = model.config, arithmetic.number
    block: Any = model.blocks[0]
    compiled = arithmetic.compiled and not arithmetic.on_cpu
    mask = _mask_bytes(model, arithmetic)
    norms = [
        _norm_bytes(block.norm_attention, model, arithmetic),
        _norm_bytes(block.norm_feed_forward, model, arithmetic),
    ]
    feed_forward = measure_part(block.feed_forward, _call, _example(model, bytes_of_number=number))
    attention = _measure_attention(model, arithmetic)
    kept = sum(norms) + 2 * (number + mask) * config.d_model + attention.kept
    kept += feed_forward.kept_compiled if compiled else feed_forward.kept
    if compiled:  # the stream between the halves is recomputed from attention's output, which is kept twice
        kept += (number - arithmetic.stream) * config.d_model
    positions = measure_part(model.positions, _embed, _example(model, bytes_of_number=arithmetic.stream))
    last_norm = _norm_bytes(model.norm, model, arithmetic)
    ends = last_norm + mask * config.d_model + positions.kept + positions.kept_input
    return Activations(kept, ends, attention, feed_forward)


def activation_bytes_per_token(model: GPT, arithmetic: Arithmetic) -> float:
    """Bytes per token that the forward pass keeps for the backward pass; on a CPU within 10 % of what torch saves.

    Args:
        model: the model, on the meta device.
        arithmetic: number formats and device.
    """
    kept = activations_per_token(model, arithmetic)
    return model.config.n_layers * kept.block + kept.ends + 2 * arithmetic.stream * model.config.d_model


def _norm_bytes(norm: nn.Module, model: GPT, arithmetic: Arithmetic) -> float:
    """Bytes that a norm keeps per token.

    On CUDA, each of torch's norms is one kernel, which keeps its input. On a CPU, the input is kept in fp32. RMSNorm,
    which is not fused there, also keeps the normalised input.
    """
    if not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        measured = measure_part(norm, _call, _example(model, bytes_of_number=arithmetic.stream))
        return measured.kept + measured.kept_input
    if not arithmetic.on_cpu:
        return arithmetic.stream * model.config.d_model
    return (8 if isinstance(norm, nn.RMSNorm) else 4) * model.config.d_model


def _measure_attention(model: GPT, arithmetic: Arithmetic) -> PartMemory:
    """Measure the attention of one block, with the backend that is expected on the device.

    Raises:
        ValueError: the backend cannot be called on the meta device.
    """
    config = model.config
    block: Any = model.blocks[0]
    example = _example(model, bytes_of_number=arithmetic.number)
    name = expected_backend(
        config.attention,
        arithmetic.device_type,
        example.dtype,
        config.d_head,
        _attention_mask(model, example),
        dropout=config.dropout,
    )
    backend = BACKENDS[name]
    if backend.traits.fused:
        backend = Backend(lambda view, device: None, lambda q, k, v, plan, dropout: attend_fused(q, k, v))
    rotation = model.positions.rotation(slice(0, config.max_seq_len))
    in_fp32 = arithmetic.is_mixed and not arithmetic.on_cpu and not arithmetic.compiled

    def attend(part: Any, x: Tensor) -> Tensor:
        plan = backend.plan(_attention_mask(model, x), x.device)
        with KernelStandIns(on_cuda=not arithmetic.on_cpu, autocast=arithmetic.is_mixed, softmax_in_fp32=in_fp32):
            result: Tensor = part(x, AttentionContext(backend, plan, rotation))
        return result

    try:
        return measure_part(block.attention, attend, example)
    except Exception as error:  # the backend may raise anything
        raise ValueError(
            f"the memory of model.attention={name} is unknown, because the backend cannot be called on the meta device "
            f"({' '.join(str(error).split()).rstrip('.')}). If it is one fused kernel, declare fused=True in its traits."
        ) from error


def _attention_mask(model: GPT, x: Tensor) -> AttentionMask:
    batch, time, _ = x.shape
    first = None if model.config.attend_across_documents else x.new_zeros(batch, time, dtype=torch.int64)
    return AttentionMask(time, time, first=first)


def _mask_bytes(model: GPT, arithmetic: Arithmetic) -> int:
    """Bytes of the dropout mask per number."""
    if model.config.dropout == 0:
        return 0
    return arithmetic.number if arithmetic.on_cpu else 1


def _example(model: GPT, *, bytes_of_number: int) -> Tensor:
    """A residual stream of one sequence, (1, max_seq_len, d_model), on the meta device."""
    dtype = torch.float32 if bytes_of_number == 4 else torch.bfloat16
    return torch.empty(1, model.config.max_seq_len, model.config.d_model, dtype=dtype, device="meta")


def _call(part: Any, x: Tensor) -> Tensor:
    result: Tensor = part(x)
    return result


def _embed(positions: Any, x: Tensor) -> Tensor:
    result: Tensor = positions.embed(x, slice(0, x.shape[1]))
    return result
