"""Number of bytes of a run: of the checkpoints on disk, and of the memory on each device.

All estimates use the model on the meta device (`build_meta_model`) and the optimizer's traits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.hours_and_loss_from_sizes import matmul_number_format
from gpt_lightning.model import GPT
from gpt_lightning.model.loss_head import CHUNK_BYTES, CHUNK_TOKENS, CUDA_CHUNK_TOKENS
from gpt_lightning.optim import OptimizerTraits, parameter_groups
from running.training.activation_memory import Activations, Arithmetic, activations_per_token

CPU_PROCESS = 40e6  # bytes that libraries and loggers add to a process
CPU_HEAP = 1.4  # ratio of glibc's heap to the live memory that is allocated and freed within a step
CUBLAS = 67e6  # bytes of cuBLAS's two workspaces


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The settings of training that memory depends on.

    Raises:
        ValueError: the precision is unknown.
    """

    micro_batch: int
    """Sequences in one forward pass."""
    precision: str
    """Lightning's name for the precision."""
    device_type: str = "cuda"
    n_devices: int = 1
    sharded: bool = False
    accumulates: bool = True
    """Whether a step has several micro-batches. With a single micro-batch, the gradients are freed before the backward
    pass.
    """
    compiled: bool = False
    """This and the next two fields are settings of the section `trainer`. They matter only on CUDA."""
    recompute: bool = False
    loss_kernel: str = "auto"

    def __post_init__(self) -> None:
        matmul_number_format(self.precision)

    @property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(self.precision, self.device_type, self.compiled)

    @property
    def is_sharded(self) -> bool:
        return self.sharded and self.n_devices > 1


def checkpoint_bytes(model: GPT, optimizer: OptimizerTraits, *, precision: str) -> int:
    """Bytes of a checkpoint file with weights and optimizer state, within 2 %.

    Args:
        model: the model, on the meta device.
        optimizer: traits of the optimizer.
        precision: Lightning's name for the precision.
    """
    states = [optimizer.state(parameter, group) for parameter, group in _parameters(model, optimizer, precision)]
    n_tensors = len(states) + sum(state.n_tensors for state in states)
    size = _weight_bytes(model, precision) + sum(state.n_bytes for state in states)
    # each tensor is a zip entry with 340 bytes of names and padding; the rest is settings and the like
    return size + 340 * n_tensors + 20_000


def peak_memory_bytes(model: GPT, optimizer: OptimizerTraits, setup: TrainingSetup) -> int:
    """Bytes that training takes on each device at its peak.

    The peak is at the end of a forward pass, when the blocks hold what the backward pass needs, the gradients of the
    previous step still exist, and the head is being computed; or at the start of the backward pass, in the last block.
    For "cpu" the result is the growth of the process, within 5 % on the six rows of benchmarks/results/cpu.json and 15
    % on fifteen other runs. For "cuda" the result is the memory that torch allocates, within 5 % of torch's own count
    for every shipped model (benchmarks/results/null_gpu.json), without the GB or so that CUDA itself takes.
    Fragmentation of the allocator on a real GPU has not been measured.

    Args:
        model: the model, on the meta device.
        optimizer: traits of the optimizer.
        setup: how the model is trained.

    Raises:
        ValueError: the size of the optimizer's state is unknown.
    """
    arithmetic = setup.arithmetic
    weights = _weight_bytes(model, setup.precision)
    moments = sum(optimizer.state(*pair).n_bytes for pair in _parameters(model, optimizer, setup.precision))
    states = _state_bytes(model, setup, weights, moments)
    copies = _cast_weight_bytes(model, setup)
    activations = activations_per_token(model, arithmetic)
    tokens = setup.micro_batch * model.config.max_seq_len
    stream = arithmetic.stream * model.config.d_model
    kept = tokens * (model.config.n_layers * activations.block + activations.ends)
    around_head = tokens * 2 * stream  # the head's input and its gradient
    if arithmetic.on_cpu:
        # or the backward pass of the last block, whose gradients are about as large as its activations
        kept += around_head + copies
        passing = max(_cpu_head_bytes(model, tokens, arithmetic), kept / model.config.n_layers)
        return int(states + CPU_PROCESS + CPU_HEAP * (kept + passing))
    if setup.recompute:
        kept = tokens * (model.config.n_layers * stream + activations.ends)
        copies /= model.config.n_layers
    in_backward = tokens * _last_block_bytes_per_token(model, setup, activations)
    if not setup.accumulates:
        in_backward -= states - weights - moments
    passing = max(around_head + _cuda_head_bytes(model, tokens, setup), in_backward)
    gradient_of_head = 4 * model.config.vocab_size * model.config.d_model
    return int(states + copies + kept + gradient_of_head + passing + CUBLAS)


def _parameters(model: GPT, optimizer: OptimizerTraits, precision: str) -> list[tuple[Tensor, Mapping[str, Any]]]:
    """(parameter in the dtype that it has in training, its group) of each parameter."""
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    groups = parameter_groups(model, muon=optimizer.muon)
    return [(parameter.to(dtype), group) for group in groups for parameter in group["params"]]


def _weight_bytes(model: GPT, precision: str) -> int:
    return model.n_parameters() * Arithmetic(precision, "cuda").stream


def _state_bytes(model: GPT, setup: TrainingSetup, weights: int, moments: int) -> float:
    """Bytes of weights, gradients (as large as the weights) and optimizer state."""
    states: float = 2 * weights + moments
    if setup.is_sharded:
        # not sharded at a given time: the parts around the blocks, one block and the next, with their gradients
        share = _block_parameters(model) * setup.arithmetic.stream / weights
        number = 0.5 if setup.arithmetic.is_mixed else 1  # blocks are gathered in bf16
        whole = 1 - share + 2 * number * share / model.config.n_layers
        return states / setup.n_devices + 2 * weights * whole
    return states + weights if setup.n_devices > 1 else states  # DDP's buckets hold the gradients once more


def _cast_weight_bytes(model: GPT, setup: TrainingSetup) -> float:
    """Bytes of autocast's copies of the blocks' matrices, which the backward pass needs too.

    Sharded ones are gathered again.
    """
    return 2 * _block_parameters(model) if setup.arithmetic.is_mixed and not setup.is_sharded else 0


def _block_parameters(model: GPT) -> int:
    return sum(parameter.numel() for parameter in model.blocks.parameters())


def _last_block_bytes_per_token(model: GPT, setup: TrainingSetup, activations: Activations) -> float:
    """Bytes per token in the backward pass of the last block, beyond what the forward pass keeps, on CUDA."""
    feed_forward = activations.feed_forward
    stream = setup.arithmetic.stream * model.config.d_model
    held: float = 2 * stream  # the residual stream's gradient before and after half a block
    in_attention = activations.attention.in_backward - feed_forward.kept  # which is free again by then
    if setup.recompute:  # half of the feed-forward's memory is free again by then
        in_feed_forward = max(0, feed_forward.in_backward - feed_forward.kept / 2)
        return held + activations.block - stream + max(in_feed_forward, in_attention)
    return held + max(feed_forward.in_backward, in_attention)


def _cpu_head_bytes(model: GPT, tokens: int, arithmetic: Arithmetic) -> float:
    """Bytes of the gradient of the head's weight, and of what `loss_head` computes it from, on a CPU."""
    vocab_size, number = model.config.vocab_size, arithmetic.number
    # the sum in fp32; in half precision also a chunk's part of it, and autocast's copy of the weight
    weight = 4 if number == 4 else 8 if arithmetic.is_mixed else 6
    rows = min(max(1, CHUNK_BYTES // (number * vocab_size)), CHUNK_TOKENS, tokens)
    # in fp32 the logits of the previous chunk still exist
    logits = (8 if tokens > rows else 4) if number == 4 else 2
    return vocab_size * (weight * model.config.d_model + logits * rows)


def _cuda_head_bytes(model: GPT, tokens: int, setup: TrainingSetup) -> float:
    """Bytes that `loss_head` holds in addition to the gradient of the head's weight, on CUDA."""
    config, number = model.config, setup.arithmetic.number
    copies = number * config.d_model * (config.vocab_size + tokens) if setup.arithmetic.is_mixed else 0
    logits = number
    if setup.loss_kernel == "torch":  # also in fp32, and the derivative of the soft cap
        logits += (4 if number == 2 else 0) + (8 if config.logit_soft_cap else 0)
    return copies + logits * config.vocab_size * min(CUDA_CHUNK_TOKENS, tokens)
