"""Values of trainer.accelerator and trainer.precision. Importing this module does not import torch."""

from typing import Literal

Accelerator = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true"]
