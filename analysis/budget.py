"""What a run will cost and reach, from plain numbers: parameters, FLOPs, hours, loss, checkpoints, memory.

`model` is everywhere the `model:` section of a config, or `dataclasses.asdict` of a GPTConfig: all its keys, already checked. No
model is built. Bytes are bytes, tokens are those that are trained on, and precisions are Lightning's words.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")
OPTIMIZERS = ("AdamW", "AdamW8bit")
CHINCHILLA_TOKENS_PER_PARAMETER = 20  # of the model that is best for its FLOPs (Hoffmann et al., arXiv:2203.15556)


# Parameters and FLOPs


def parameter_shapes(model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by its name, as `GPT.named_parameters` has them; a tied head is the embedding."""
    d_model, d_ff, vocab_size = model["d_model"], model["d_ff"], model["vocab_size"]
    queries_keys_values = d_model + 2 * _kv_width(model)
    inner, inner_rows = ("gate_up", 2 * d_ff) if model["feed_forward"] == "swiglu" else ("up", d_ff)
    norm_bias = model["bias"] and model["norm"] == "layernorm"

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (d_model,)} | ({f"{name}.bias": (d_model,)} if norm_bias else {})

    def linear(name: str, d_out: int, d_in: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (d_out, d_in)} | ({f"{name}.bias": (d_out,)} if model["bias"] else {})

    block = {
        **norm("norm_attention"),
        **linear("attention.qkv", queries_keys_values, d_model),
        **linear("attention.out", d_model, d_model),
        **norm("norm_feed_forward"),
        **linear(f"feed_forward.{inner}", inner_rows, d_model),
        **linear("feed_forward.out", d_model, d_ff),
    }
    return {
        "embedding.weight": (vocab_size, d_model),
        **({"positions.weight": (model["max_seq_len"], d_model)} if model["position"] == "learned" else {}),
        **{f"blocks.{n}.{name}": shape for n in range(model["n_layers"]) for name, shape in block.items()},
        **norm("norm"),
        **({} if model["tie_embeddings"] else {"head.weight": (vocab_size, d_model)}),
    }


def n_parameters(model: Mapping[str, Any], *, without: Collection[str] = ()) -> int:
    """Parameters, a tied one counted once; `without` names some to leave out: positions.weight, embedding.weight."""
    return sum(math.prod(shape) for name, shape in parameter_shapes(model).items() if name not in without)


def flops_per_token(model: Mapping[str, Any]) -> int:
    """FLOPs of training on one token, forward and backward: 6 N + 12 n_layers d_model T (PaLM, arXiv:2204.02311).

    N is the parameters that a token is multiplied with. What is only looked up is left out: the table of positions, and an input
    embedding that is not the head too. T is max_seq_len; the causal half of attention is not taken off, as is the custom.
    """
    looked_up = ["positions.weight", *([] if model["tie_embeddings"] else ["embedding.weight"])]
    attention = 12 * model["n_layers"] * model["d_model"] * model["max_seq_len"]
    return 6 * n_parameters(model, without=looked_up) + attention


# Devices


@dataclass(frozen=True)
class Device:
    """One kind of GPU, by its maker's data sheet."""

    memory: int
    """Bytes; the driver, CUDA and fragments keep one or two GB of them."""
    peak_flops: Mapping[str, float]
    """Dense FLOP/s by number format: bf16, fp16, fp32. A format that it only emulates is not there."""

    @property
    def precision(self) -> str:
        """What trainer.precision=auto is on it."""
        return "bf16-mixed" if "bf16" in self.peak_flops else "16-mixed"


def _device(gigabytes: int, half: float, fp32: float, *, formats: tuple[str, ...] = ("bf16", "fp16")) -> Device:
    return Device(gigabytes * 10**9, {**dict.fromkeys(formats, half), "fp32": fp32})


# fp32 is without TF32, as torch multiplies by default; H100 and H200 are the SXM ones, the RTX 4090 sums in fp32.
DEVICES = {
    "H200": _device(141, 989e12, 67e12),
    "H100": _device(80, 989e12, 67e12),
    "A100": _device(40, 312e12, 19.5e12),
    "A100 80GB": _device(80, 312e12, 19.5e12),
    "L40S": _device(48, 362.05e12, 91.6e12),
    "L4": _device(24, 121e12, 30.3e12),
    "A10G": _device(24, 70e12, 31.5e12),
    "T4": _device(16, 65e12, 8.1e12, formats=("fp16",)),
    "RTX 4090": _device(24, 165.2e12, 82.6e12),
    "V100": _device(16, 125e12, 15.7e12, formats=("fp16",)),
    "V100 32GB": _device(32, 125e12, 15.7e12, formats=("fp16",)),
}
_OTHER_PARTS = {"PCIE", "NVL", "MIG", "LAPTOP", "D"}  # slower variants, and slices, that carry the same name


def find_device(name: str) -> Device:
    """The device that is called so here, or by torch: "A100 80GB", "NVIDIA A100-SXM4-80GB".

    Raises:
        ValueError: it is not known.
    """
    words = set(re.split(r"[\s-]+", name.upper()))
    matching = [known for known in DEVICES if set(known.upper().split()) <= words]
    if not matching or words & _OTHER_PARTS:
        raise ValueError(f"device {name!r} is not known: take one of {', '.join(DEVICES)}.")
    return DEVICES[max(matching, key=len)]


def peak_flops(device_name: str, number_format: str = "bf16") -> float | None:
    """The device's dense peak in FLOP/s; None: not known, or it has no such arithmetic."""
    try:
        return find_device(device_name).peak_flops.get(number_format)
    except ValueError:
        return None


def hours(flops: float, device: str, *, precision: str, mfu: float, n_devices: int = 1) -> float:
    """Hours that `flops` take on `n_devices` devices of which each reaches the share `mfu` of its peak.

    Raises:
        ValueError: the device is not known or has no such arithmetic, or a number is out of its range.
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu is {mfu}: it is a share of the device's peak, above 0 and at most 1.")
    if flops < 0 or n_devices < 1:
        raise ValueError(f"{flops} FLOPs on {n_devices} devices: there must be 0 or more, on 1 or more.")
    found = find_device(device)
    peak = found.peak_flops.get(_number_format(precision))
    if peak is None:
        raise ValueError(f"device {device} does not compute in {precision}: take trainer.precision={found.precision}.")
    return flops / (peak * mfu * n_devices) / 3600


# Loss


@dataclass(frozen=True)
class LossForecast:
    """Nats per token that a run is expected to end with, on web text and in a vocabulary like GPT-2's."""

    loss: float
    low: float
    high: float
    note: str | None
    """Why even that range is not to be trusted; None: it is."""


def effective_tokens(unique_tokens: float, epochs: float) -> float:
    """Fresh tokens that are worth `epochs` passes over `unique_tokens` (Muennighoff et al., arXiv:2305.16264).

    U + 15.4 U (1 - e^(-R/15.4)), with R = epochs - 1 repeats; below one epoch, the tokens drawn.

    Raises:
        ValueError: either is negative.
    """
    if unique_tokens < 0 or epochs < 0:
        raise ValueError(f"{unique_tokens} unique tokens, {epochs} epochs: neither can be negative.")
    drawn, repeats = unique_tokens * min(epochs, 1), max(epochs - 1, 0)
    return drawn + 15.4 * unique_tokens * -math.expm1(-repeats / 15.4)


def chinchilla_loss(n_parameters: float, sources: Mapping[str, tuple[float, float]]) -> LossForecast:
    """The final loss by Chinchilla's law as refitted by Besiroglu et al. (arXiv:2404.10102).

    L = 1.8172 + 482.01 / N^0.3478 + 2085.43 / D^0.3658, N all parameters, D the sum of `effective_tokens` over the sources.

    The law was fitted on another corpus and tokenizer, and wants an offset for each. For GPT-2's tokenizer on FineWeb it is +0.26:
    llm.c's 124M measured 3.272 after 10 B tokens. Other 124M runs with AdamW ended 0.13 (RoPE, learning rate tuned: 3.28
    after 5 B) to 0.36 above the law (GPT-2.5: 3.304 after 10.5 B). So `low` is the law, `loss` is 0.26 and `high` 0.5 above it.

    Args:
        n_parameters: of the model, embeddings included.
        sources: (unique tokens, epochs over them) of each source.

    Raises:
        ValueError: there are no parameters or no tokens.
    """
    tokens = sum(effective_tokens(unique, epochs) for unique, epochs in sources.values())
    if n_parameters <= 0 or tokens <= 0:
        raise ValueError(f"{n_parameters} parameters, {tokens} tokens: a loss can be expected of more than 0 of each.")
    law = 1.8172 + 482.01 / n_parameters**0.3478 + 2085.43 / tokens**0.3658
    outside = [
        f"{value:,.0f} {what}, and it was fitted on {low / unit[0]:,.0f} to {high / unit[0]:,.0f} {unit[1]}"
        for value, what, low, high, unit in (
            (n_parameters, "parameters", 44e6, 16e9, (1e6, "million")),
            (tokens, "tokens", 5e9, 500e9, (1e9, "billion")),
        )
        if not low <= value <= high
    ]
    note = f"Chinchilla's law says nothing certain here: {'; '.join(outside)}." if outside else None
    return LossForecast(law + 0.26, law, law + 0.5, note)


def tokens_per_parameter(n_parameters: float, tokens: float) -> float:
    """Tokens trained on for each parameter, to be held against CHINCHILLA_TOKENS_PER_PARAMETER."""
    return tokens / n_parameters


# Checkpoints and memory

CPU_PROCESS = 40e6  # bytes that libraries and loggers add to a process on a CPU
CPU_FRAGMENTS = 1.4  # glibc's heap holds so much more than lives in it, of what comes and goes within a step


def checkpoint_bytes(model: Mapping[str, Any], *, optimizer: str, precision: str) -> int:
    """Size of one checkpoint file, within 2 %: weights and the optimizer's state. While one is written there is one more than kept.

    Args:
        optimizer: the last word of `optimizer._target_`: AdamW, or AdamW8bit.
        precision: of the training; bf16-true keeps weights and moments in bf16.

    Raises:
        ValueError: the optimizer or the precision is not known.
    """
    weights, moments = _state_bytes(model, optimizer, precision)
    per_parameter = 6 if optimizer == "AdamW8bit" else 4  # weight, moments, their scales or the step
    return weights + moments + 340 * per_parameter * len(parameter_shapes(model))  # of the zip and the pickle


def peak_memory_bytes(
    model: Mapping[str, Any],
    *,
    micro_batch: int,
    optimizer: str,
    precision: str,
    device_type: str = "cuda",
    n_devices: int = 1,
) -> int:
    """Bytes that training occupies at its peak on each device; not for compiled blocks (less), nor for sharded states.

    On a GPU it is what torch has allocated. On a CPU it is what the process grows by:

    The peak is the end of a forward pass: all blocks keep what their backward pass needs, the last step's gradients are not
    yet dropped, and the loss head is at work.

    Raises:
        ValueError: the optimizer, the precision or the type of device is not known.
    """
    if device_type not in ("cpu", "cuda"):
        raise ValueError(f"device type {device_type!r} is not known: it must be cpu or cuda.")
    weights, moments = _state_bytes(model, optimizer, precision)
    states = (
        weights * (2 if n_devices == 1 else 3) + moments
    )  # gradients are as large; DDP has them in buckets once more
    kept = micro_batch * model["max_seq_len"] * _kept_bytes_per_token(model, precision, device_type)
    if precision.endswith("mixed"):  # autocast's copies of the matrices, which the backward pass reads too
        kept += 2 * sum(
            math.prod(shape) for name, shape in parameter_shapes(model).items() if name.startswith("blocks")
        )
    # or the backward pass of the last block, whose gradients are about as large as what it kept
    passing = max(_loss_head_bytes(model, micro_batch, precision, device_type), kept / model["n_layers"])
    if device_type == "cpu":
        return int(states + CPU_PROCESS + CPU_FRAGMENTS * (kept + passing))
    # a step that is not fused, as with fp16's scaler, forms one more tensor of each weight's size, when nothing else is kept
    unfused = weights if precision == "16-mixed" and optimizer == "AdamW" else 0
    return int(states + max(kept + passing, unfused))


def _state_bytes(model: Mapping[str, Any], optimizer: str, precision: str) -> tuple[int, int]:
    """(weights, both moments of the optimizer) in bytes."""
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer {optimizer!r} is not known: the state of {' and '.join(OPTIMIZERS)} is.")
    _number_format(precision)
    sizes = [math.prod(shape) for shape in parameter_shapes(model).values()]
    weights = sum(sizes) * (2 if precision == "bf16-true" else 4)
    if optimizer == "AdamW":
        return weights, 2 * weights
    # bitsandbytes: a byte a number and an fp32 scale for each 256; tensors of less than 4,096 numbers stay in fp32
    return weights, sum(2 * (n + 4 * math.ceil(n / 256)) if n >= 4096 else 8 * n for n in sizes)


def _kept_bytes_per_token(model: Mapping[str, Any], precision: str, device_type: str) -> float:
    """What the forward pass keeps of each token for the backward pass."""
    d_model, n_heads, dropout, on_cpu = model["d_model"], model["n_heads"], model["dropout"] > 0, device_type == "cpu"
    keys = _kv_width(model)
    number = 4 if precision == "32-true" else 2  # bytes, of what matrices are multiplied in
    stream = 2 if precision == "bf16-true" else 4  # of the residual stream
    dropped = (number if on_cpu else 1) if dropout else 0  # a dropout's mask
    norm_input = (
        8 if on_cpu and model["norm"] == "rmsnorm" else stream
    )  # not fused there: fp32, before and after the division
    norms = 2 * (norm_input + number) * d_model  # and their outputs, which matrices are multiplied with

    qkv = number * (d_model + 2 * keys)
    scores = 0.0  # attention's T x T matrices: this token's rows
    if model["attention"] == "manual":
        softmax = (
            4 if precision.endswith("mixed") and not on_cpu else number
        )  # CUDA's autocast takes it in fp32 and casts it back
        scores = softmax + (number if dropout or softmax != number else 0) + dropped
        attention = 3 * number * d_model + (qkv if model["qk_norm"] and number == 4 else 0)  # the heads as matrices
    elif on_cpu and dropout:  # torch has no fast kernel for it: the matrices after all, in fp32
        scores = 3 * 4
        attention = 3 * 4 * d_model
    else:
        attention = qkv + 4 * n_heads
        masked = not model["attend_across_documents"] and model["attention"] != "flash"
        if masked:
            attention += number * model["max_seq_len"]
        if model["position"] == "rope" or model["qk_norm"]:
            attention += number * (d_model + keys)  # queries and keys, turned
        if keys < d_model and (masked or number == 4):
            attention += 2 * number * d_model  # keys and values, repeated for their queries
    if model["qk_norm"] and number == 2:
        attention += 4 * (d_model + keys)  # queries and keys in fp32
    attention += number * d_model + scores * n_heads * model["max_seq_len"]  # what comes out of it

    feed_forward = number * model["d_ff"] * (4 if model["feed_forward"] == "swiglu" else 2)
    block = norms + attention + feed_forward + 2 * dropped * d_model
    ends = (norm_input + 2 * stream + dropped) * d_model  # the last norm's input and output, and the gradient of it
    return model["n_layers"] * block + ends


def _loss_head_bytes(model: Mapping[str, Any], micro_batch: int, precision: str, device_type: str) -> float:
    """The head's gradient and the chunks that it is formed from; see gpt_lightning/model/loss_head.py."""
    number = 4 if precision == "32-true" else 2
    weight = model["vocab_size"] * model["d_model"]
    # the sum of gradients in fp32; in half precision a chunk's share of it, and autocast's copy of the weight
    matrices = weight * (4 if number == 4 else 8 if precision.endswith("mixed") else 6)
    tokens = micro_batch * model["max_seq_len"]
    rows = min(max(1, 2**25 // (number * model["vocab_size"])), 1024, tokens)
    if number == 4:
        logits = 8 if tokens > rows else 4  # with those of the chunk before
    else:
        logits = 2 if device_type == "cpu" else 6  # and in fp32
    if model["logit_soft_cap"] is not None and device_type == "cuda":
        logits += 4  # the slope of the cap
    return matrices + rows * model["vocab_size"] * logits


def _kv_width(model: Mapping[str, Any]) -> int:
    """Width of all keys, and of all values."""
    return model["d_model"] // model["n_heads"] * (model["n_kv_heads"] or model["n_heads"])


def _number_format(precision: str) -> str:
    """What matrices are multiplied in."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not known: it must be one of {', '.join(PRECISIONS)}.")
    return {"32": "fp32", "bf16": "bf16", "16": "fp16"}[precision.split("-")[0]]
