"""Bytes that a run takes, from plain numbers: its checkpoints on the disk, its memory on each device.

No model is built. `precision` is Lightning's word, `optimizer` the last word of its `_target_`; an unknown one is a ValueError.
"""

import math

from analysis.compute_estimate import Model, key_value_width, matmul_number_format, parameter_shapes

OPTIMIZERS = ("AdamW", "AdamW8bit", "MuonAdamW")
CPU_PROCESS = 40e6  # bytes that libraries and loggers add to a process
CPU_HEAP = 1.4  # glibc's heap occupies so much more than lives in it, of what comes and goes within a step
CUDA_CHUNK_TOKENS = 8192  # whose logits the loss head holds at a time
CUBLAS = 67e6  # bytes of its two workspaces


def checkpoint_bytes(model: Model, *, optimizer: str, precision: str) -> int:
    """Size of a checkpoint file, weights and moments, within 2 %. During a save there is one more than are kept."""
    records = 6 if optimizer == "AdamW8bit" else 4  # of each parameter in the zip, with 340 bytes of names and padding
    n_records = records * len(parameter_shapes(model)) - (2 * len(_hidden(model)) if optimizer == "MuonAdamW" else 0)
    return sum(_state_bytes(model, optimizer, precision)) + 340 * n_records + 20_000  # of settings and the like


def peak_memory_bytes(
    model: Model,
    *,
    micro_batch: int,
    optimizer: str,
    precision: str,
    device_type: str = "cuda",
    n_devices: int = 1,
    sharded: bool = False,
    accumulates: bool = True,
    compiled: bool = False,
    recompute: bool = False,
    loss_kernel: str = "auto",
) -> int:
    """Bytes that training takes on each device at its peak.

    The peak is the end of a forward pass: the blocks keep what their backward pass needs, the gradients of the step before are
    still there, and the head is at work. Or it is the begin of the backward pass, in the last block. For "cpu" it is what the
    process grows by, within 5 % on the six rows of benchmarks/results/cpu.json and 15 % on fifteen other runs. For "cuda" it is
    what torch allocates, within 5 % of its own count for every shipped model (benchmarks/results/null_gpu.json), without the
    GB or so that CUDA takes for itself; how the allocator's blocks fit on a real GPU has not been measured.

    Args:
        accumulates: whether a step has several micro-batches; the blocks' gradients of a single one are freed before its backward
            pass.
        compiled, recompute, loss_kernel: as in the config's section `trainer`; they count on CUDA alone.
    """
    weights, moments = _state_bytes(model, optimizer, precision)
    # gradients are as large as weights
    states: float = 2 * weights + moments
    inside = sum(math.prod(shape) for name, shape in parameter_shapes(model).items() if "blocks" in name)
    if n_devices > 1 and sharded:
        # whole are what lies around the blocks, one block, and the next, with their gradients
        share = inside * (2 if precision == "bf16-true" else 4) / weights
        number = 0.5 if precision.endswith("mixed") else 1  # blocks are gathered in bf16
        states = states / n_devices + 2 * weights * (1 - share + 2 * number * share / model["n_layers"])
    elif n_devices > 1:  # DDP's buckets hold the gradients once more
        states += weights
    tokens = micro_batch * model["max_seq_len"]
    # autocast's copies of the matrices, for the backward pass too; sharded ones are gathered again
    copies = 2 * inside if precision.endswith("mixed") and not (n_devices > 1 and sharded) else 0
    block, ends = _kept_per_token(model, precision=precision, device_type=device_type, compiled=compiled)
    stream = _stream_bytes(precision) * model["d_model"]
    kept = tokens * (model["n_layers"] * block + ends)
    around_head = tokens * 2 * stream  # what the head reads, and the gradient of that
    if device_type == "cpu":
        # or the last block's backward pass, whose gradients are about as large as what it kept
        kept += around_head + copies
        passing = max(_cpu_head_bytes(model, tokens, precision), kept / model["n_layers"])
        return int(states + CPU_PROCESS + CPU_HEAP * (kept + passing))
    in_backward = tokens * 2 * stream  # the gradient of the residual stream, before and after half a block
    if recompute:
        kept = tokens * (model["n_layers"] * stream + ends)
        copies /= model["n_layers"]
        in_backward += tokens * (block - stream)
        if model["feed_forward"] == "relu2":  # a product with itself has two gradients
            in_backward += tokens * _number_bytes(precision) * model["d_ff"]
    else:
        gradients = 7 if model["feed_forward"] == "swiglu" and not compiled else 2
        in_backward += tokens * gradients * _number_bytes(precision) * model["d_ff"]
    if model["attention"] == "manual":  # gradients of T x T matrices: of scores, in fp32, and of what is dropped
        rows = 4 + _number_bytes(precision) + (1 if model["dropout"] else 0)
        in_backward += tokens * rows * model["n_heads"] * model["max_seq_len"]
    if not accumulates:
        in_backward -= states - weights - moments
    passing = max(around_head + _cuda_head_bytes(model, tokens, precision, loss_kernel), in_backward)
    gradient_of_head = 4 * model["vocab_size"] * model["d_model"]
    return int(states + copies + kept + gradient_of_head + passing + CUBLAS)


def _state_bytes(model: Model, optimizer: str, precision: str) -> tuple[int, int]:
    """(weights, moments) in bytes."""
    matmul_number_format(precision)
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"the size of optimizer {optimizer} is not known: that of {' and '.join(OPTIMIZERS)} is.")
    sizes = [math.prod(shape) for shape in parameter_shapes(model).values()]
    weights = sum(sizes) * (2 if precision == "bf16-true" else 4)
    if optimizer == "AdamW":
        return weights, 2 * weights
    if optimizer == "MuonAdamW":  # a single one of what Muon trains
        return weights, 2 * weights - weights * sum(_hidden(model).values()) // sum(sizes)
    # bitsandbytes: a byte a number and an fp32 scale for each 256; below 4,096 numbers fp32
    return weights, sum(2 * (n + 4 * math.ceil(n / 256)) if n >= 4096 else 8 * n for n in sizes)


def activation_bytes_per_token(model: Model, *, precision: str, device_type: str) -> float:
    """Bytes that the forward pass keeps of a token for the backward pass; on a CPU within 10 % of what torch saves."""
    block, ends = _kept_per_token(model, precision=precision, device_type=device_type)
    return model["n_layers"] * block + ends + 2 * _stream_bytes(precision) * model["d_model"]


def _kept_per_token(model: Model, *, precision: str, device_type: str, compiled: bool = False) -> tuple[float, float]:
    """Bytes that the forward pass keeps of a token: (in each block, around the blocks)."""
    d_model, keys, cpu = model["d_model"], key_value_width(model), device_type == "cpu"
    compiled = compiled and not cpu
    number, stream = _number_bytes(precision), _stream_bytes(precision)
    mask = 0 if model["dropout"] == 0 else number if cpu else 1  # of a dropout
    # a norm keeps its input, on a CPU in fp32; where RMS norm is not fused, divided as well
    norm = stream if not cpu else 8 if model["norm"] == "rmsnorm" else 4
    qkv, turned = number * (d_model + 2 * keys), model["position"] == "rope" or model["qk_norm"]
    masked = not model["attend_across_documents"] and not _takes_borders(model, number, cpu)
    rows = 0.0  # bytes a key in a head, of T x T matrices
    if model["attention"] == "manual":
        softmax = (
            4 if precision.endswith("mixed") and not cpu and not compiled else number
        )  # CUDA's autocast takes fp32
        rows = softmax + mask + (number if mask or softmax != number else 0)
        attention = 3 * number * d_model + (qkv if model["qk_norm"] and number == 4 else 0)
    elif cpu and mask:  # no kernel of torch drops there: T x T after all, all in fp32
        rows, attention = 3 * 4, 3 * 4 * d_model
    else:
        attention = qkv + 4 * model["n_heads"] + (number * model["max_seq_len"] if masked else 0)
        attention += number * (d_model + keys) if turned else 0  # queries and keys
        repeated = keys < d_model and (masked or number == 4)  # keys and values, for each query that they serve
        attention += 2 * number * d_model if repeated else 0
    attention += 4 * (d_model + keys) if model["qk_norm"] and number == 2 and cpu else 0  # queries and keys in fp32
    attention += rows * model["n_heads"] * model["max_seq_len"] + number * d_model  # what comes out
    in_feed_forward = {"swiglu": 3 if compiled else 4}.get(model["feed_forward"], 2)
    block = 2 * (norm + number + mask) * d_model + attention + in_feed_forward * number * model["d_ff"]
    if compiled:  # the stream between the halves is formed again, from what attention gives, which is kept twice
        block += (number - stream) * d_model
    return block, (norm + mask) * d_model  # the last norm's input


def _takes_borders(model: Model, number: int, cpu: bool) -> bool:
    """Whether documents that are kept apart are told by their borders, and not by a mask."""
    if model["attention"] == "flash":
        return True
    return model["attention"] in ("auto", "sdpa_flash") and number == 2 and not cpu and model["dropout"] == 0


def _number_bytes(precision: str) -> int:
    """Bytes of a number that goes into a matrix product."""
    return 4 if matmul_number_format(precision) == "fp32" else 2


def _stream_bytes(precision: str) -> int:
    """Bytes of a number in the residual stream."""
    return 2 if precision == "bf16-true" else 4


def _cpu_head_bytes(model: Model, tokens: int, precision: str) -> float:
    """The gradient of the head's weight, and what `loss_head` forms it from."""
    vocab_size, number = model["vocab_size"], 4 if precision == "32-true" else 2
    # the sum in fp32; in half precision also a chunk's share of it, and autocast's copy of the weight
    weight = 4 if number == 4 else 8 if precision.endswith("mixed") else 6
    rows = min(max(1, 2**25 // (number * vocab_size)), 1024, tokens)
    # fp32: the logits of the previous chunk are still held
    logits = (8 if tokens > rows else 4) if number == 4 else 2
    return vocab_size * (weight * model["d_model"] + logits * rows)


def _cuda_head_bytes(model: Model, tokens: int, precision: str, loss_kernel: str) -> float:
    """What `loss_head` holds besides the gradient of the head's weight."""
    number = _number_bytes(precision)
    copies = number * model["d_model"] * (model["vocab_size"] + tokens) if precision.endswith("mixed") else 0
    logits = number
    if loss_kernel == "torch":  # in fp32 as well, and the cap's slope
        logits += (4 if number == 2 else 0) + (8 if model["logit_soft_cap"] else 0)
    return copies + logits * model["vocab_size"] * min(CUDA_CHUNK_TOKENS, tokens)


def _hidden(model: Model) -> dict[str, int]:
    """The sizes of the matrices of the blocks."""
    shapes = parameter_shapes(model).items()
    return {name: math.prod(shape) for name, shape in shapes if name.startswith("blocks") and len(shape) == 2}
