"""Register parts of your own under a word that the config may use.

Call these functions in a module of your own and start a command with `+imports=[my_module]`. docs/howto/own_parts.md has an
example of each.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import nn
from torch.optim import Optimizer

from gpt_lightning.model.attention_backends import BACKENDS, Backend
from gpt_lightning.model.feed_forward import FEED_FORWARDS
from gpt_lightning.model.norms import NORMS
from gpt_lightning.model.positions import POSITIONS, Positions
from gpt_lightning.optim.optimizer_traits import OPTIMIZER_TRAITS, OptimizerTraits
from gpt_lightning.optim.schedules import FALLS

T = TypeVar("T")


def register_norm(name: str, build: Callable[..., nn.Module]) -> None:
    """Let `model.norm=<name>` choose a norm.

    Args:
        name: the word.
        build: `build(width, bias=bool)` gives a module that normalises the last dimension, of size `width`.

    Raises:
        ValueError: the word has another meaning already.
    """
    _register(NORMS, "norm", name, build)


def register_feed_forward(name: str, build: Callable[..., nn.Module]) -> None:
    """Let `model.feed_forward=<name>` choose a feed-forward.

    Args:
        name: the word.
        build: `build(d_model, d_ff, bias=bool)` gives a module from (…, d_model) to the same, whose last linear layer is called
            `out`. Take `gpt_lightning.model.cpu_linear.FastLinear` for its linear layers.

    Raises:
        ValueError: the word has another meaning already.
    """
    _register(FEED_FORWARDS, "feed_forward", name, build)


def register_position(name: str, build: Callable[..., Positions]) -> None:
    """Let `model.position=<name>` choose how a token learns its position.

    Args:
        name: the word.
        build: `build(max_seq_len=int, d_model=int, d_head=int)` gives a module with the methods `embed` and `rotation` of
            `gpt_lightning.model.positions.LearnedPositions`.

    Raises:
        ValueError: the word has another meaning already.
    """
    _register(POSITIONS, "position", name, build)


def register_attention_backend(name: str, backend: Backend) -> None:
    """Let `model.attention=<name>` choose how attention is computed.

    Args:
        name: the word.
        backend: its two functions; see `gpt_lightning.model.attention_backends`.

    Raises:
        ValueError: the word has another meaning already.
    """
    _register(BACKENDS, "attention", name, backend)


def register_schedule(name: str, fall: Callable[[float], float]) -> None:
    """Let `schedule.shape=<name>` choose how the learning rate falls after the warm-up.

    Args:
        name: the word.
        fall: progress from 0 to 1 -> the share of the way down that is left, from 1 at 0 to 0 at 1.

    Raises:
        ValueError: the word has another meaning already.
    """
    _register(FALLS, "schedule.shape", name, fall)


def register_optimizer(optimizer: type[Optimizer], traits: OptimizerTraits) -> None:
    """Let `optimizer._target_=<module>.<class>` choose an optimizer.

    Args:
        optimizer: its class, which takes parameter groups and keyword arguments.
        traits: what plan.py and FSDP must know of it.
    """
    OPTIMIZER_TRAITS[f"{optimizer.__module__}.{optimizer.__qualname__}"] = traits


def _register(registry: dict[str, T], kind: str, name: str, part: T) -> None:
    if name in registry and registry[name] is not part:
        raise ValueError(f"{kind} {name!r} exists already: register yours under another name.")
    registry[name] = part
