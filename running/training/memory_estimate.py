"""Bytes that a run takes: its checkpoints on the disk, its memory on each device.

All follows from the model on the meta device (`build_meta_model`) and from the optimizer's traits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.time_and_loss_forecast import matmul_number_format
from gpt_lightning.model import GPT
from gpt_lightning.model.loss_head import CHUNK_BYTES, CHUNK_TOKENS, CUDA_CHUNK_TOKENS
from gpt_lightning.optim import OptimizerTraits, parameter_groups
from running.training.activation_memory import Activations, Arithmetic, activations_per_token

CPU_PROCESS = 40e6  # bytes that libraries and loggers add to a process
CPU_HEAP = 1.4  # glibc's heap occupies so much more than lives in it, of what comes and goes within a step
CUBLAS = 67e6  # bytes of its two workspaces


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """How a model is trained, as far as memory depends on it.

    Raises:
        ValueError: the precision is unknown.
    """

    micro_batch: int
    """Sequences."""
    precision: str
    """Lightning's."""
    device_type: str = "cuda"
    n_devices: int = 1
    sharded: bool = False
    accumulates: bool = True
    """Whether a step has several micro-batches. The gradients of a single one are freed before its backward pass."""
    compiled: bool = False
    """This and the next two: as in the config's section `trainer`; they count on CUDA alone."""
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
    """Size of a checkpoint file, weights and moments, within 2 %. During a save there is one more than are kept."""
    states = [optimizer.state(parameter, group) for parameter, group in _parameters(model, optimizer, precision)]
    n_tensors = len(states) + sum(state.n_tensors for state in states)
    size = _weight_bytes(model, precision) + sum(state.n_bytes for state in states)
    # each tensor is a record of the zip, with 340 bytes of names and padding; settings and the like come on top
    return size + 340 * n_tensors + 20_000


def peak_memory_bytes(model: GPT, optimizer: OptimizerTraits, setup: TrainingSetup) -> int:
    """Bytes that training takes on each device at its peak.

    The peak is the end of a forward pass: the blocks keep what their backward pass needs, the gradients of the step before are
    still there, and the head is at work. Or it is the begin of the backward pass, in the last block. For "cpu" it is what the
    process grows by, within 5 % on the six rows of benchmarks/results/cpu.json and 15 % on fifteen other runs. For "cuda" it is
    what torch allocates, within 5 % of its own count for every shipped model (benchmarks/results/null_gpu.json), without the
    GB or so that CUDA takes for itself; how the allocator's blocks fit on a real GPU has not been measured.

    Raises:
        ValueError: the size of the optimizer's state is not known.
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
    around_head = tokens * 2 * stream  # what the head reads, and the gradient of that
    if arithmetic.on_cpu:
        # or the last block's backward pass, whose gradients are about as large as what it kept
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
    """(parameter in the dtype that it has in training, its group) of each."""
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    groups = parameter_groups(model, muon=optimizer.muon)
    return [(parameter.to(dtype), group) for group in groups for parameter in group["params"]]


def _weight_bytes(model: GPT, precision: str) -> int:
    return model.n_parameters() * Arithmetic(precision, "cuda").stream


def _state_bytes(model: GPT, setup: TrainingSetup, weights: int, moments: int) -> float:
    """Weights, moments, and gradients, which are as large as weights."""
    states: float = 2 * weights + moments
    if setup.is_sharded:
        # whole are what lies around the blocks, one block, and the next, with their gradients
        share = _block_parameters(model) * setup.arithmetic.stream / weights
        number = 0.5 if setup.arithmetic.is_mixed else 1  # blocks are gathered in bf16
        whole = 1 - share + 2 * number * share / model.config.n_layers
        return states / setup.n_devices + 2 * weights * whole
    return states + weights if setup.n_devices > 1 else states  # DDP's buckets hold the gradients once more


def _cast_weight_bytes(model: GPT, setup: TrainingSetup) -> float:
    """Autocast's copies of the blocks' matrices, for the backward pass too; sharded ones are gathered again."""
    return 2 * _block_parameters(model) if setup.arithmetic.is_mixed and not setup.is_sharded else 0


def _block_parameters(model: GPT) -> int:
    return sum(parameter.numel() for parameter in model.blocks.parameters())


def _last_block_bytes_per_token(model: GPT, setup: TrainingSetup, activations: Activations) -> float:
    """What the backward pass of the last block holds beyond what the forward pass has kept, on CUDA."""
    config, arithmetic, feed_forward = model.config, setup.arithmetic, activations.feed_forward
    stream = arithmetic.stream * config.d_model
    held: float = 2 * stream  # the gradient of the residual stream, before and after half a block
    if setup.recompute:  # its gradients come when half of what the feed-forward kept is free again
        held += activations.block - stream + max(0, feed_forward.in_backward - feed_forward.kept / 2)
    else:
        held += feed_forward.in_backward
    if config.attention == "manual":  # gradients of T x T matrices: of scores, in fp32, and of what is dropped
        held += (4 + arithmetic.number + (1 if config.dropout else 0)) * config.n_heads * config.max_seq_len
    return held


def _cpu_head_bytes(model: GPT, tokens: int, arithmetic: Arithmetic) -> float:
    """The gradient of the head's weight, and what `loss_head` forms it from."""
    vocab_size, number = model.config.vocab_size, arithmetic.number
    # the sum in fp32; in half precision also a chunk's share of it, and autocast's copy of the weight
    weight = 4 if number == 4 else 8 if arithmetic.is_mixed else 6
    rows = min(max(1, CHUNK_BYTES // (number * vocab_size)), CHUNK_TOKENS, tokens)
    # fp32: the logits of the previous chunk are still held
    logits = (8 if tokens > rows else 4) if number == 4 else 2
    return vocab_size * (weight * model.config.d_model + logits * rows)


def _cuda_head_bytes(model: GPT, tokens: int, setup: TrainingSetup) -> float:
    """What `loss_head` holds besides the gradient of the head's weight."""
    config, number = model.config, setup.arithmetic.number
    copies = number * config.d_model * (config.vocab_size + tokens) if setup.arithmetic.is_mixed else 0
    logits = number
    if setup.loss_kernel == "torch":  # in fp32 as well, and the cap's slope
        logits += (4 if number == 2 else 0) + (8 if config.logit_soft_cap else 0)
    return copies + logits * config.vocab_size * min(CUDA_CHUNK_TOKENS, tokens)
