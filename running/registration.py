"""Register custom components under names that the config can use.

Call these functions in a Python module and start a command with `+imports=[my_module]`. docs/extending.md has an example
of each. Importing this module does not import torch.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from data_modules.corpora import TextOrConversation
from data_modules.order.curriculum_policy_registry import CURRICULUM_POLICIES
from gpt_lightning.learning_rate_schedules import FALLS
from gpt_lightning.model.part_registry import BACKENDS, FEED_FORWARDS, NORMS, POSITIONS
from running.config.registered_targets import register_target

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from torch import nn
    from torch.optim import Optimizer

    from gpt_lightning.model.attention_backends import Backend
    from gpt_lightning.model.positions import Positions
    from gpt_lightning.optim.optimizer_traits import OptimizerTraits


def register_norm(name: str, build: "Callable[..., nn.Module]") -> None:
    """Make a norm available as `model.norm=<name>`.

    Args:
        name: the name in the config.
        build: `build(width, bias=bool)` returns a module that normalises the last dimension, which has size `width`.

    Raises:
        ValueError: the name is already registered.
    """
    _register(NORMS, "norm", name, build)


def register_feed_forward(name: str, build: "Callable[..., nn.Module]") -> None:
    """Make a feed-forward available as `model.feed_forward=<name>`.

    Args:
        name: the name in the config.
        build: `build(d_model, d_ff, bias=bool)` returns a module from (…, d_model) to (…, d_model). The last linear
            layer of the module must be its attribute `out`. Use `gpt_lightning.model.cpu_linear.FastLinear` for linear
            layers.

    Raises:
        ValueError: the name is already registered.
    """
    _register(FEED_FORWARDS, "feed_forward", name, build)


def register_position(name: str, build: "Callable[..., Positions]") -> None:
    """Make a position encoding available as `model.position=<name>`.

    Args:
        name: the name in the config.
        build: `build(max_seq_len=int, d_model=int, d_head=int)` returns a module with the methods `embed` and
            `rotation` of `gpt_lightning.model.positions.LearnedPositions`.

    Raises:
        ValueError: the name is already registered.
    """
    _register(POSITIONS, "position", name, build)


def register_attention_backend(name: str, backend: "Backend") -> None:
    """Make an attention backend available as `model.attention=<name>`.

    Args:
        name: the name in the config.
        backend: the two functions of the backend, and its traits if it has requirements; see
            `gpt_lightning.model.attention_backends.Backend`.

    Raises:
        ValueError: the name is already registered.
    """
    _register(BACKENDS, "attention", name, backend)


def register_schedule(name: str, fall: Callable[[float], float]) -> None:
    """Make a learning-rate decay available as `schedule.shape=<name>`.

    Args:
        name: the name in the config.
        fall: function from progress, 0 to 1, to the remaining share of the decay, from 1 at 0 to 0 at 1.

    Raises:
        ValueError: the name is already registered.
    """
    _register(FALLS, "schedule.shape", name, fall)


def register_optimizer(optimizer: "type[Optimizer]", traits: "OptimizerTraits") -> None:
    """Make an optimizer available as `optimizer._target_=<module>.<class>`, and declare the optimizer's traits.

    Args:
        optimizer: the class, called with parameter groups and keyword arguments.
        traits: what plan.py and FSDP need to know about the optimizer.

    Raises:
        ValueError: the class is not at the top level of a module, or its name is already registered.
    """
    from gpt_lightning.optim.optimizer_traits import OPTIMIZER_TRAITS

    OPTIMIZER_TRAITS[register_target("optimizer", optimizer)] = traits


def register_callback(callback: "type[Callback]") -> None:
    """Make a callback available as `callbacks.<name>._target_=<module>.<class>`.

    Args:
        callback: the class, called with keyword arguments.

    Raises:
        ValueError: the class is not at the top level of a module, or its name is already registered.
    """
    register_target("callback", callback)


def register_source_reader(read: Callable[..., Iterable[TextOrConversation]]) -> None:
    """Make a source reader available as `corpus: {_target_: <module>.<function>}` in the config of a source.

    Args:
        read: `read(**arguments)` returns or yields the documents, in the same order at each call. A document is a text,
            or a conversation: a list of `{"role": "user" or "assistant" or "system", "content": text}`. The arguments
            are the other keys of `corpus`.

    Raises:
        ValueError: the function is not at the top level of a module, or its name is already registered.
    """
    register_target("source reader", read)


def register_curriculum_policy(name: str, policy: Callable[..., Mapping[str, float]]) -> None:
    """Make a curriculum policy, which changes the mix weights over the run, available as `curriculum.policy.name=<name>`.

    Args:
        name: the name in the config.
        policy: `policy(progress, weights, **settings)` returns the weights of sources or mixes at one step. `progress`
            is the completed fraction of the run, from 0 to below 1. `weights` are the shares that the keyframes give
            the sources at this step. `settings` are the other keys of `curriculum.policy`. The result must depend on
            these arguments only.

    Raises:
        ValueError: the name is already registered.
    """
    _register(CURRICULUM_POLICIES, "curriculum.policy", name, policy)


def _register(registry: MutableMapping[str, Any], kind: str, name: str, part: Any) -> None:
    if name in registry and registry[name] is not part:
        raise ValueError(f"{kind} {name!r} is already registered: register yours under another name.")
    registry[name] = part
