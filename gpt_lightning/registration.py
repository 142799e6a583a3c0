"""Register custom components under names that the config can use.

Call these functions in a Python module and start a command with `+imports=[my_module]`. docs/howto/own_parts.md has an
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
    """Make a norm available as `model.norm=<name>`.

    Args:
        name: The name in the config.
        build: `build(width, bias=bool)` returns a module that normalises the last dimension, which has size `width`.

    Raises:
        ValueError: The name is already registered.
    """
    _register(NORMS, "norm", name, build)


def register_feed_forward(name: str, build: Callable[..., nn.Module]) -> None:
    """Make a feed-forward available as `model.feed_forward=<name>`.

    Args:
        name: The name in the config.
        build: `build(d_model, d_ff, bias=bool)` returns a module from (…, d_model) to (…, d_model). Its last linear
            layer must be an attribute `out`. Use `gpt_lightning.model.cpu_linear.FastLinear` for linear layers.

    Raises:
        ValueError: The name is already registered.
    """
    _register(FEED_FORWARDS, "feed_forward", name, build)


def register_position(name: str, build: Callable[..., Positions]) -> None:
    """Make a position encoding available as `model.position=<name>`.

    Args:
        name: The name in the config.
        build: `build(max_seq_len=int, d_model=int, d_head=int)` returns a module with the methods `embed` and
            `rotation` of `gpt_lightning.model.positions.LearnedPositions`.

    Raises:
        ValueError: The name is already registered.
    """
    _register(POSITIONS, "position", name, build)


def register_attention_backend(name: str, backend: Backend) -> None:
    """Make an attention backend available as `model.attention=<name>`.

    Args:
        name: The name in the config.
        backend: Its two functions; see `gpt_lightning.model.attention_backends`.

    Raises:
        ValueError: The name is already registered.
    """
    _register(BACKENDS, "attention", name, backend)


def register_schedule(name: str, fall: Callable[[float], float]) -> None:
    """Make a learning-rate decay available as `schedule.shape=<name>`.

    Args:
        name: The name in the config.
        fall: Function from progress, 0 to 1, to the remaining share of the decay, from 1 at 0 to 0 at 1.

    Raises:
        ValueError: The name is already registered.
    """
    _register(FALLS, "schedule.shape", name, fall)


def register_optimizer(optimizer: type[Optimizer], traits: OptimizerTraits) -> None:
    """Declare the traits of an optimizer that the config chooses with `optimizer._target_=<module>.<class>`.

    Args:
        optimizer: The class; it takes parameter groups and keyword arguments.
        traits: What plan.py and FSDP need to know about it.
    """
    OPTIMIZER_TRAITS[f"{optimizer.__module__}.{optimizer.__qualname__}"] = traits


def _register(registry: dict[str, T], kind: str, name: str, part: T) -> None:
    if name in registry and registry[name] is not part:
        raise ValueError(f"{kind} {name!r} is already registered: register yours under another name.")
    registry[name] = part
