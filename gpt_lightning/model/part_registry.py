"""Names of the interchangeable parts of a model. Importing this module does not import torch.

Each registry maps a name that the config may use to the part: a function that builds a module (norms, feed-forwards,
positions), a `Backend` (attention), or a function (loss kernels). `running.registration` adds the user's own parts.
"""

from collections import UserDict
from importlib import import_module
from typing import Any


class PartRegistry(UserDict[str, Any]):
    """Name -> part. A string `module:attribute` stands for a part that is imported at the first look-up."""

    def __getitem__(self, name: str) -> Any:
        part = self.data[name]
        if isinstance(part, str):
            module, _, attribute = part.partition(":")
            part = self.data[name] = getattr(import_module(module), attribute)
        return part


def _registry(module: str, **attributes: str) -> PartRegistry:
    return PartRegistry({name: f"gpt_lightning.model.{module}:{attribute}" for name, attribute in attributes.items()})


NORMS = _registry("norms", layernorm="layer_norm", rmsnorm="rms_norm")
FEED_FORWARDS = _registry(
    "feed_forward", gelu="gelu", gelu_tanh="gelu_tanh", swiglu="SwiGLUFeedForward", relu2="relu2_feed_forward"
)
POSITIONS = _registry("positions", learned="LearnedPositions", rope="RotaryPositions")
BACKENDS = _registry(
    "attention_backends",
    manual="MANUAL",
    sdpa="SDPA",
    sdpa_flash="SDPA_FLASH",
    sdpa_cudnn="SDPA_CUDNN",
    sdpa_efficient="SDPA_EFFICIENT",
    flash="FLASH",
)
LOSS_KERNELS = PartRegistry(
    {
        "torch": "gpt_lightning.model.loss_kernels:torch_loss",
        "triton": "gpt_lightning.model.loss_kernel_triton:triton_loss",
    }
)


def check_loss_kernel(name: str) -> None:
    """Check the setting trainer.loss_kernel.

    Raises:
        ValueError: The setting is neither a key of LOSS_KERNELS nor auto.
    """
    if name not in (known := (*LOSS_KERNELS, "auto")):
        raise ValueError(f"trainer.loss_kernel is {name!r}: it must be one of {', '.join(known)}.")
