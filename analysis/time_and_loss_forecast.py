"""What a run will cost and reach, from plain numbers: hours and loss.

`precision` is Lightning's word; an unknown one is a ValueError.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

# what matrices are multiplied in, by precision
NUMBER_FORMATS = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16", "bf16-true": "bf16"}
CHINCHILLA_TOKENS_PER_PARAMETER = 20  # of the model that is best for its FLOPs (Hoffmann et al., arXiv:2203.15556)


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


def training_hours(flops: float, device: str, *, precision: str, mfu: float, n_devices: int = 1) -> float:
    """Hours for `flops` on `n_devices` devices, each at the share `mfu` of its peak; a ValueError where it has none."""
    if find_device(device) is None:
        raise ValueError(f"device {device} is not known: take one of {', '.join(DEVICES)}.")
    peak = peak_flops(device, matmul_number_format(precision))
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


def matmul_number_format(precision: str) -> str:
    """What matrices are multiplied in: fp32, bf16 or fp16."""
    if precision not in NUMBER_FORMATS:
        raise ValueError(f"precision {precision} is not known: it must be one of {', '.join(NUMBER_FORMATS)}.")
    return NUMBER_FORMATS[precision]
