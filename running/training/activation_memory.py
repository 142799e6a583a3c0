"""Bytes that the forward pass keeps for the backward pass.

Attention, dropout and torch's own norms are counted by formula. The feed-forward and any other part are measured on the
meta device, so a part that a user registers is measured too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from analysis.time_and_loss_forecast import matmul_number_format
from gpt_lightning.model import GPT
from gpt_lightning.model.part_memory import PartMemory, measure_part


@dataclass(frozen=True)
class Arithmetic:
    """Number formats and device of the activations.

    Raises:
        ValueError: the precision is unknown.
    """

    precision: str
    """Lightning's name for it."""
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
    feed_forward: PartMemory
    """Memory of the feed-forward of one block; `block` includes what it keeps."""


def activations_per_token(model: GPT, arithmetic: Arithmetic) -> Activations:
    """Activation memory per token of a model on the meta device.

    Args:
        model: the model, on the meta device.
        arithmetic: number formats and device.
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
    kept = sum(norms) + 2 * (number + mask) * config.d_model + _attention_bytes(model, arithmetic)
    kept += feed_forward.kept_compiled if compiled else feed_forward.kept
    if compiled:  # the stream between the halves is recomputed from attention's output, which is kept twice
        kept += (number - arithmetic.stream) * config.d_model
    positions = measure_part(model.positions, _embed, _example(model, bytes_of_number=arithmetic.stream))
    last_norm = _norm_bytes(model.norm, model, arithmetic)
    return Activations(kept, last_norm + mask * config.d_model + positions.kept + positions.kept_input, feed_forward)


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


def _attention_bytes(model: GPT, arithmetic: Arithmetic) -> float:
    """Bytes that attention keeps per token, without its normalised input."""
    config, number = model.config, arithmetic.number
    d_model, keys, time = config.d_model, config.d_head * config.kv_heads, config.max_seq_len
    mask = _mask_bytes(model, arithmetic)
    qkv = number * (d_model + 2 * keys)
    turned = config.qk_norm or model.positions.rotation(slice(0, 1)) is not None
    masked = not config.attend_across_documents and not _takes_borders(model, arithmetic)
    rows = 0.0  # bytes per key and head of T x T matrices
    if config.attention == "manual":
        takes_fp32 = arithmetic.is_mixed and not arithmetic.on_cpu and not arithmetic.compiled
        softmax = 4 if takes_fp32 else number  # CUDA's autocast computes it in fp32
        rows = softmax + mask + (number if mask or softmax != number else 0)
        kept = 3 * number * d_model + (qkv if config.qk_norm and number == 4 else 0)
    elif arithmetic.on_cpu and mask:  # no torch kernel has dropout there: T x T matrices in fp32
        rows, kept = 3 * 4, 3 * 4 * d_model
    else:
        kept = qkv + 4 * config.n_heads + (number * time if masked else 0)
        kept += number * (d_model + keys) if turned else 0  # queries and keys
        repeated = keys < d_model and (masked or number == 4)  # keys and values are repeated for each query head
        kept += 2 * number * d_model if repeated else 0
    kept += (
        4 * (d_model + keys) if config.qk_norm and number == 2 and arithmetic.on_cpu else 0
    )  # queries and keys in fp32
    return kept + rows * config.n_heads * time + number * d_model  # the output


def _takes_borders(model: GPT, arithmetic: Arithmetic) -> bool:
    """Whether the kernel takes document borders instead of a mask to keep documents apart."""
    config = model.config
    if config.attention == "flash":
        return True
    is_half = arithmetic.number == 2 and not arithmetic.on_cpu
    return config.attention in ("auto", "sdpa_flash") and is_half and config.dropout == 0


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
