"""What a run will cost and reach, from plain numbers: parameters, FLOPs, hours, loss, checkpoints, memory.

No model is built. `precision` is Lightning's word, `optimizer` the last word of its `_target_`; an unknown one is a ValueError.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

Model = Mapping[str, Any]  # the `model:` section of a config, or `asdict` of a GPTConfig: all its keys, already checked
# what matrices are multiplied in, by precision
NUMBER_FORMATS = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16", "bf16-true": "bf16"}
OPTIMIZERS = ("AdamW", "AdamW8bit", "MuonAdamW")
CHINCHILLA_TOKENS_PER_PARAMETER = 20  # of the model that is best for its FLOPs (Hoffmann et al., arXiv:2203.15556)
CPU_PROCESS = 40e6  # bytes that libraries and loggers add to a process
CPU_HEAP = 1.4  # glibc's heap occupies so much more than lives in it, of what comes and goes within a step


def parameter_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by its name, as `GPT.named_parameters` gives them: a tied head is the embedding."""
    d_model, d_ff, vocab_size = model["d_model"], model["d_ff"], model["vocab_size"]
    norm_bias = model["bias"] and model["norm"] == "layernorm"
    inner, inner_rows = ("gate_up", 2 * d_ff) if model["feed_forward"] == "swiglu" else ("up", d_ff)
    linear = {
        "attention.qkv": (d_model + 2 * _kv_width(model), d_model),
        "attention.out": (d_model, d_model),
        f"feed_forward.{inner}": (inner_rows, d_model),
        "feed_forward.out": (d_model, d_ff),
    }
    biases = {name: shape[:1] for name, shape in linear.items()} if model["bias"] else {}
    in_blocks = [f"blocks.{n}.norm_{part}" for n in range(model["n_layers"]) for part in ("attention", "feed_forward")]
    return {
        "embedding.weight": (vocab_size, d_model),
        **({"positions.weight": (model["max_seq_len"], d_model)} if model["position"] == "learned" else {}),
        **{f"blocks.{n}.{name}.weight": shape for n in range(model["n_layers"]) for name, shape in linear.items()},
        **{f"blocks.{n}.{name}.bias": shape for n in range(model["n_layers"]) for name, shape in biases.items()},
        **{f"{name}.weight": (d_model,) for name in (*in_blocks, "norm")},
        **({f"{name}.bias": (d_model,) for name in (*in_blocks, "norm")} if norm_bias else {}),
        **({} if model["tie_embeddings"] else {"head.weight": (vocab_size, d_model)}),
    }


def n_parameters(model: Model, *, without: Collection[str] = ()) -> int:
    """Parameters, a tied one counted once; `without` names some to leave out: positions.weight, embedding.weight."""
    return sum(math.prod(shape) for name, shape in parameter_shapes(model).items() if name not in without)


def flops_per_token(model: Model) -> int:
    """FLOPs of training on one token, forward and backward: 6 N + 12 n_layers d_model T (PaLM, arXiv:2204.02311).

    N is the parameters that a token is multiplied with. What is only looked up is left out: the table of positions, and an input
    embedding that is not the head as well. T is max_seq_len; the half of attention that is masked counts, as is the custom.
    """
    looked_up = ["positions.weight", *([] if model["tie_embeddings"] else ["embedding.weight"])]
    attention = 12 * model["n_layers"] * model["d_model"] * model["max_seq_len"]
    return 6 * n_parameters(model, without=looked_up) + attention


@dataclass(frozen=True)
class Device:
    """A kind of GPU, by its maker's data sheet."""

    memory: float
    """Bytes; the driver, CUDA and fragments take one or two GB of them."""
    half: float
    """Dense FLOP/s in bf16 and fp16, summed in fp32."""
    fp32: float
    """FLOP/s in fp32, without TF32, as torch multiplies by default."""
    has_bf16: bool = True


DEVICES = {
    "B200": Device(180e9, 2250e12, 75e12),  # HGX B200, a GPU of its eight
    "H200": Device(141e9, 989e12, 67e12),  # this and the next: SXM
    "H100": Device(80e9, 989e12, 67e12),
    "A100": Device(40e9, 312e12, 19.5e12),
    "A100 80GB": Device(80e9, 312e12, 19.5e12),
    "A100 PCIe": Device(40e9, 312e12, 19.5e12),
    "A100 80GB PCIe": Device(80e9, 312e12, 19.5e12),
    "L40S": Device(48e9, 362.05e12, 91.6e12),
    "L4": Device(24e9, 121e12, 30.3e12),
    "A10G": Device(24e9, 70e12, 31.5e12),
    "RTX 5090": Device(32e9, 209.5e12, 104.8e12),  # NVIDIA RTX Blackwell GPU Architecture, its table of the RTX 5090
    "RTX 4090": Device(24e9, 165.2e12, 82.6e12),
    "T4": Device(16e9, 65e12, 8.1e12, has_bf16=False),
    "V100": Device(16e9, 125e12, 15.7e12, has_bf16=False),
    "V100 32GB": Device(32e9, 125e12, 15.7e12, has_bf16=False),
}
_LESSER = {"PCIE", "NVL", "MIG", "LAPTOP", "D"}  # variants, and slices, that are slower than those without


def find_device(name: str) -> Device | None:
    """The device that is called so here, or by torch ("NVIDIA A100-SXM4-80GB"); None: not known, and never guessed."""
    words = set(re.split(r"[\s-]+", name.upper()))
    of_known = {known: set(known.upper().split()) for known in DEVICES}
    fitting = [known for known, its in of_known.items() if its <= words and not (words - its) & _LESSER]
    return DEVICES[max(fitting, key=len)] if fitting else None


def peak_flops(device: str, number_format: str = "bf16") -> float | None:
    """Dense FLOP/s in bf16, fp16 or fp32; None: the device is not known, or has no such arithmetic."""
    found = find_device(device)
    if found is None or (number_format == "bf16" and not found.has_bf16):
        return None
    return found.fp32 if number_format == "fp32" else found.half


def hours(flops: float, device: str, *, precision: str, mfu: float, n_devices: int = 1) -> float:
    """Hours for `flops` on `n_devices` devices, each at the share `mfu` of its peak; a ValueError where it has none."""
    if find_device(device) is None:
        raise ValueError(f"device {device} is not known: take one of {', '.join(DEVICES)}.")
    peak = peak_flops(device, _number_format(precision))
    if peak is None:
        raise ValueError(f"device {device} has no bf16 arithmetic: take trainer.precision=16-mixed.")
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu is {mfu}: it is a share of the device's peak, above 0 and at most 1.")
    return flops / (peak * mfu * n_devices) / 3600


@dataclass(frozen=True)
class LossForecast:
    """Nats per token that a run should end with, on web text and with a vocabulary like GPT-2's."""

    loss: float
    low: float
    high: float
    note: str | None
    """Why even the range means little; None: it holds."""


def effective_tokens(unique_tokens: float, epochs: float) -> float:
    """Fresh tokens that `epochs` passes over `unique_tokens` are worth (Muennighoff et al., arXiv:2305.16264).

    U + 15.4 U (1 - e^(-R/15.4)), R = epochs - 1 repeats; for less than one epoch, the tokens drawn.
    """
    if unique_tokens < 0 or epochs < 0:
        raise ValueError(f"{unique_tokens} unique tokens, {epochs} epochs: neither can be negative.")
    return unique_tokens * (min(epochs, 1) - 15.4 * math.expm1(-max(epochs - 1, 0) / 15.4))


def chinchilla_loss(n_parameters: float, sources: Mapping[str, tuple[float, float]]) -> LossForecast:
    """The final loss by Chinchilla's law as refitted by Besiroglu et al. (arXiv:2404.10102).

    L = 1.8172 + 482.01 / N^0.3478 + 2085.43 / D^0.3658: N parameters, embeddings included, and D `effective_tokens`, the sum over
    the sources' (unique tokens, epochs). It was fitted on another corpus and tokenizer, so each needs an offset: +0.26 on FineWeb
    in GPT-2's tokens, where llm.c's 124M came to 3.272 after 10 B. With AdamW, others ended 0.13 (RoPE, tuned rate: 3.28 after
    5 B) to 0.36 (GPT-2.5: 3.304 after 10.5 B) above the law. So `low` is the law, `loss` lies 0.26 above it and `high` 0.5.
    """
    tokens = sum(effective_tokens(unique, epochs) for unique, epochs in sources.values())
    if n_parameters <= 0 or tokens <= 0:
        raise ValueError(f"{n_parameters} parameters, {tokens} tokens: for a loss there must be some of each.")
    law = 1.8172 + 482.01 / n_parameters**0.3478 + 2085.43 / tokens**0.3658
    inside = 44e6 <= n_parameters <= 16e9 and 5e9 <= tokens <= 500e9
    note = None if inside else "beyond what the law was fitted on, 44 M to 16 B parameters and 5 to 500 B tokens"
    return LossForecast(law + 0.26, law, law + 0.5, note)


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
) -> int:
    """Bytes that training takes on each device at its peak; without compiling, which takes less.

    The peak is the end of a forward pass: the blocks keep what their backward pass needs, the gradients of the step before are
    still there, and the head is at work. For "cpu" it is what the process grows by, within 5 % on the six rows of
    benchmarks/results/cpu.json and 15 % on fifteen other runs; for "cuda" what torch allocates, compared with no GPU yet.
    """
    weights, moments = _state_bytes(model, optimizer, precision)
    # gradients are as large as weights
    states: float = 2 * weights + moments
    if (
        n_devices > 1 and sharded
    ):  # whole are what lies around the blocks, one block, and the next, with their gradients
        inside = sum(math.prod(shape) for name, shape in parameter_shapes(model).items() if "blocks" in name)
        share = inside * (2 if precision == "bf16-true" else 4) / weights
        number = 0.5 if precision.endswith("mixed") else 1  # blocks are gathered in bf16
        states = states / n_devices + 2 * weights * (1 - share + 2 * number * share / model["n_layers"])
    elif n_devices > 1:  # DDP's buckets hold the gradients once more
        states += weights
    tokens = micro_batch * model["max_seq_len"]
    kept = tokens * activation_bytes_per_token(model, precision=precision, device_type=device_type)
    # autocast's copies of the matrices, for the backward pass too; sharded ones are gathered again
    if precision.endswith("mixed") and not (n_devices > 1 and sharded):
        kept += 2 * sum(math.prod(shape) for name, shape in parameter_shapes(model).items() if "blocks" in name)
    # or the last block's backward pass, whose gradients are about as large as what it kept
    passing = max(_head_bytes(model, tokens, precision, device_type), kept / model["n_layers"])
    return int(states + (kept + passing if device_type == "cuda" else CPU_PROCESS + CPU_HEAP * (kept + passing)))


def _state_bytes(model: Model, optimizer: str, precision: str) -> tuple[int, int]:
    """(weights, moments) in bytes."""
    _number_format(precision)
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
    d_model, keys, cpu = model["d_model"], _kv_width(model), device_type == "cpu"
    number = 4 if _number_format(precision) == "fp32" else 2  # bytes of what goes into matrix products
    stream = 2 if precision == "bf16-true" else 4  # and of the residual stream
    mask = 0 if model["dropout"] == 0 else number if cpu else 1  # of a dropout
    # a norm keeps its input; where RMS norm is not fused, in fp32 and divided as well
    norm = 8 if cpu and model["norm"] == "rmsnorm" else stream
    qkv, turned = number * (d_model + 2 * keys), model["position"] == "rope" or model["qk_norm"]
    masked = not model["attend_across_documents"] and model["attention"] != "flash"
    rows = 0.0  # bytes a key in a head, of T x T matrices
    if model["attention"] == "manual":
        softmax = 4 if precision.endswith("mixed") and not cpu else number  # CUDA's autocast takes it in fp32
        rows = softmax + mask + (number if mask or softmax != number else 0)
        attention = 3 * number * d_model + (qkv if model["qk_norm"] and number == 4 else 0)
    elif cpu and mask:  # no kernel of torch drops there: T x T after all, all in fp32
        rows, attention = 3 * 4, 3 * 4 * d_model
    else:
        attention = qkv + 4 * model["n_heads"] + (number * model["max_seq_len"] if masked else 0)
        attention += number * (d_model + keys) if turned else 0  # queries and keys
        repeated = keys < d_model and (masked or number == 4)  # keys and values, for each query that they serve
        attention += 2 * number * d_model if repeated else 0
    attention += 4 * (d_model + keys) if model["qk_norm"] and number == 2 else 0  # queries and keys in fp32
    attention += rows * model["n_heads"] * model["max_seq_len"] + number * d_model  # what comes out
    feed_forward = number * model["d_ff"] * (4 if model["feed_forward"] == "swiglu" else 2)
    block = 2 * (norm + number + mask) * d_model + attention + feed_forward  # each half: norm in and out, dropout
    ends = (norm + 2 * stream + mask) * d_model  # the last norm's input and output, and the gradient of that
    return model["n_layers"] * block + ends


def _head_bytes(model: Model, tokens: int, precision: str, device_type: str) -> float:
    """The gradient of the head's weight, and what `loss_head` forms it from."""
    vocab_size, number = model["vocab_size"], 4 if precision == "32-true" else 2
    # the sum in fp32; in half precision also a chunk's share of it, and autocast's copy of the weight
    weight = 4 if number == 4 else 8 if precision.endswith("mixed") else 6
    rows = min(max(1, 2**25 // (number * vocab_size)), 1024, tokens)
    # fp32: those of the chunk before beside these; on a GPU: in fp32 as well, and the cap's slope
    logits = (8 if tokens > rows else 4) if number == 4 else 2 if device_type == "cpu" else 6
    logits += 4 if model["logit_soft_cap"] and device_type == "cuda" else 0
    return vocab_size * (weight * model["d_model"] + logits * rows)


def _hidden(model: Model) -> dict[str, int]:
    """The sizes of the matrices of the blocks."""
    shapes = parameter_shapes(model).items()
    return {name: math.prod(shape) for name, shape in shapes if name.startswith("blocks") and len(shape) == 2}


def _kv_width(model: Model) -> int:
    return int(model["d_model"] // model["n_heads"] * (model["n_kv_heads"] or model["n_heads"]))


def _number_format(precision: str) -> str:
    if precision not in NUMBER_FORMATS:
        raise ValueError(f"precision {precision} is not known: it must be one of {', '.join(NUMBER_FORMATS)}.")
    return NUMBER_FORMATS[precision]
