"""Which number format a device trains in."""

import torch

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true")


def working_dtype(precision: str) -> torch.dtype:
    """The number format that matrices are multiplied in under one of Lightning's precisions."""
    return {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}[precision.split("-")[0]]


def choose_precision(wanted: str, *, device: str) -> tuple[str, str]:
    """(Lightning's precision, why). `auto` goes by the device's capability; anything else is taken as it is.

    `torch.cuda.is_bf16_supported()` is not asked: it says yes on a T4, which only emulates bf16.

    Raises:
        ValueError: there is no such precision.
    """
    if wanted not in PRECISIONS:
        raise ValueError(f"trainer.precision is {wanted!r}: it must be one of {', '.join(PRECISIONS)}.")
    if wanted != "auto":
        return wanted, "as configured"
    if device != "cuda":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
            return "bf16-mixed", "this CPU multiplies bf16 faster than fp32"
        return "32-true", "this CPU has no bf16 arithmetic known to be faster"
    major, minor = torch.cuda.get_device_capability()
    if major >= 8:
        return "bf16-mixed", f"compute capability {major}.{minor} has bf16"
    return "16-mixed", f"compute capability {major}.{minor} has no bf16: fp16 with a gradient scaler"
