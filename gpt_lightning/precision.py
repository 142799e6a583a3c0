"""Which number format a device trains in."""

import torch


def choose_precision(wanted: str, *, device: str) -> tuple[str, str]:
    """(Lightning's precision, why). `auto` goes by the device's capability; anything else is taken as it is.

    `torch.cuda.is_bf16_supported()` is not asked: it says yes on a T4, which only emulates bf16.
    """
    if wanted != "auto":
        return wanted, "as configured"
    if device != "cuda":
        return "32-true", "a CPU trains in fp32"
    major, minor = torch.cuda.get_device_capability()
    if major >= 8:
        return "bf16-mixed", f"compute capability {major}.{minor} has bf16"
    return "16-mixed", f"compute capability {major}.{minor} has no bf16: fp16 with a gradient scaler"
