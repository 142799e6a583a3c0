"""Forecast the hours and the final loss of a run from plain numbers.

`precision` is Lightning's name for the precision. An unknown name raises ValueError.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

# Lightning's precision -> number format of matrix products
NUMBER_FORMATS = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16", "bf16-true": "bf16"}
CHINCHILLA_TOKENS_PER_PARAMETER = 20  # compute-optimal (Hoffmann et al., arXiv:2203.15556)


@dataclass(frozen=True)
class Device:
    """A type of GPU, from the maker's data sheet."""

    memory: float
    """Bytes, of which the driver, CUDA and fragmentation take one or two GB."""
    half: float
    """Dense FLOP/s in bf16 and fp16 with fp32 accumulation."""
    fp32: float
    """FLOP/s in fp32 without TF32, torch's default."""
    has_bf16: bool = True


DEVICES = {
    "B200": Device(180e9, 2250e12, 75e12),  # HGX B200, one of its eight GPUs
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
_LESSER = {"PCIE", "NVL", "MIG", "LAPTOP", "D"}  # slower variants, and slices of a GPU


def find_device(name: str) -> Device | None:
    """The device of a name used here or by torch ("NVIDIA A100-SXM4-80GB"); None if the device is not known for
    certain.

    Args:
        name: name of the device.
    """
    words = set(re.split(r"[\s-]+", name.upper()))
    of_known = {known: set(known.upper().split()) for known in DEVICES}
    fitting = [known for known, its in of_known.items() if its <= words and not (words - its) & _LESSER]
    return DEVICES[max(fitting, key=len)] if fitting else None


def peak_flops(device: str, number_format: str = "bf16") -> float | None:
    """Dense FLOP/s in bf16, fp16 or fp32; None if the device is unknown or does not support the format.

    Args:
        device: name of the device.
        number_format: bf16, fp16 or fp32.
    """
    found = find_device(device)
    if found is None or (number_format == "bf16" and not found.has_bf16):
        return None
    return found.fp32 if number_format == "fp32" else found.half


def training_hours(flops: float, device: str, *, precision: str, mfu: float, n_devices: int = 1) -> float:
    """Hours for `flops` FLOPs.

    Args:
        flops: FLOPs of the whole run.
        device: name of the device.
        precision: Lightning's name for the precision.
        mfu: fraction of the device's peak that is reached.
        n_devices: number of devices.

    Raises:
        ValueError: the device is unknown or does not support the precision, or `mfu` is out of range.
    """
    if find_device(device) is None:
        raise ValueError(f"device {device} is not known: it must be one of {', '.join(DEVICES)}.")
    peak = peak_flops(device, matmul_number_format(precision))
    if peak is None:
        raise ValueError(f"device {device} does not support bf16: set trainer.precision=16-mixed.")
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu is {mfu}: it must be a fraction of the device's peak, above 0 and at most 1.")
    return flops / (peak * mfu * n_devices) / 3600


@dataclass(frozen=True)
class LossForecast:
    """Expected final loss in nats per token, on web text with a vocabulary like GPT-2's."""

    loss: float
    low: float
    high: float
    note: str | None
    """Why the forecast is unreliable; None if it is reliable."""


def effective_tokens(unique_tokens: float, epochs: float) -> float:
    """Number of fresh tokens that are worth `epochs` passes over `unique_tokens` (Muennighoff et al.,
    arXiv:2305.16264).

    U + 15.4 U (1 - e^(-R/15.4)), R = epochs - 1 repeats; below one epoch, the tokens drawn.

    Args:
        unique_tokens: U.
        epochs: passes over the unique tokens.

    Raises:
        ValueError: a value is negative.
    """
    if unique_tokens < 0 or epochs < 0:
        raise ValueError(f"{unique_tokens} unique tokens, {epochs} epochs: both must be 0 or more.")
    return unique_tokens * (min(epochs, 1) - 15.4 * math.expm1(-max(epochs - 1, 0) / 15.4))


def chinchilla_loss(n_parameters: float, sources: Mapping[str, tuple[float, float]]) -> LossForecast:
    """The final loss by Chinchilla's law, as refitted by Besiroglu et al. (arXiv:2404.10102).

    L = 1.8172 + 482.01 / N^0.3478 + 2085.43 / D^0.3658, with N parameters including embeddings, and D the
    `effective_tokens` summed over the sources. The law was fitted on another corpus and tokenizer, so each corpus needs
    an offset: +0.26 on FineWeb in GPT-2's tokens, where llm.c's 124M reached 3.272 after 10 B tokens. With AdamW,
    others ended 0.13 (RoPE, tuned rate: 3.28 after 5 B) to 0.36 (GPT-2.5: 3.304 after 10.5 B) above the law. Therefore
    `low` is the law, `loss` is 0.26 above it and `high` 0.5 above it.

    Args:
        n_parameters: N.
        sources: source -> (unique tokens, epochs).

    Raises:
        ValueError: there are no parameters or no tokens.
    """
    tokens = sum(effective_tokens(unique, epochs) for unique, epochs in sources.values())
    if n_parameters <= 0 or tokens <= 0:
        raise ValueError(f"{n_parameters} parameters, {tokens} tokens: both must be above 0.")
    law = 1.8172 + 482.01 / n_parameters**0.3478 + 2085.43 / tokens**0.3658
    inside = 44e6 <= n_parameters <= 16e9 and 5e9 <= tokens <= 500e9
    note = None if inside else "outside the range of the law's fit, 44 M to 16 B parameters and 5 to 500 B tokens"
    return LossForecast(law + 0.26, law, law + 0.5, note)


def matmul_number_format(precision: str) -> str:
    """Number format of matrix products: fp32, bf16 or fp16.

    Args:
        precision: Lightning's name for the precision.

    Raises:
        ValueError: the precision is unknown.
    """
    if precision not in NUMBER_FORMATS:
        raise ValueError(f"precision {precision} is not known: it must be one of {', '.join(NUMBER_FORMATS)}.")
    return NUMBER_FORMATS[precision]
