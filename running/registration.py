"""Register parts of your own, so that a config may choose them.

Call these functions in a module of your own and start a command with `+imports=[my_module]`. docs/extending.md has a complete
example of each. Each function imports what it needs, so that a module which only reads a source does not import torch.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from data_modules.corpora import Document
from data_modules.curriculum_policies import CURRICULUM_POLICIES
from running.config.registered_targets import register_target

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from torch import nn
    from torch.optim import Optimizer

    from gpt_lightning.model.attention_backends import Backend
    from gpt_lightning.model.positions import Positions
    from gpt_lightning.optim.optimizer_traits import OptimizerTraits

Part = TypeVar("Part")


def register_norm(name: str, build: "Callable[..., nn.Module]") -> None:
    """Let `model.norm=<name>` choose a norm.

    Args:
        name: the word.
        build: `build(width, bias=bool)` gives a module that normalises the last dimension, of size `width`.

    Raises:
        ValueError: the word has another meaning already.
    """
    from gpt_lightning.model.norms import NORMS

    _register(NORMS, "norm", name, build)


def register_feed_forward(name: str, build: "Callable[..., nn.Module]") -> None:
    """Let `model.feed_forward=<name>` choose a feed-forward.

    Args:
        name: the word.
        build: `build(d_model, d_ff, bias=bool)` gives a module from (…, d_model) to the same, whose last linear layer is called
            `out`. Take `gpt_lightning.model.cpu_linear.FastLinear` for its linear layers.

    Raises:
        ValueError: the word has another meaning already.
    """
    from gpt_lightning.model.feed_forward import FEED_FORWARDS

    _register(FEED_FORWARDS, "feed_forward", name, build)


def register_position(name: str, build: "Callable[..., Positions]") -> None:
    """Let `model.position=<name>` choose how a token learns its position.

    Args:
        name: the word.
        build: `build(max_seq_len=int, d_model=int, d_head=int)` gives a module with the methods `embed` and `rotation` of
            `gpt_lightning.model.positions.LearnedPositions`.

    Raises:
        ValueError: the word has another meaning already.
    """
    from gpt_lightning.model.positions import POSITIONS

    _register(POSITIONS, "position", name, build)


def register_attention_backend(name: str, backend: "Backend") -> None:
    """Let `model.attention=<name>` choose how attention is computed.

    Args:
        name: the word.
        backend: its two functions; see `gpt_lightning.model.attention_backends`.

    Raises:
        ValueError: the word has another meaning already.
    """
    from gpt_lightning.model.attention_backends import BACKENDS

    _register(BACKENDS, "attention", name, backend)


def register_schedule(name: str, fall: Callable[[float], float]) -> None:
    """Let `schedule.shape=<name>` choose how the learning rate falls after the warm-up.

    Args:
        name: the word.
        fall: progress from 0 to 1 -> the share of the way down that is left, from 1 at 0 to 0 at 1.

    Raises:
        ValueError: the word has another meaning already.
    """
    from gpt_lightning.optim.schedules import FALLS

    _register(FALLS, "schedule.shape", name, fall)


def register_optimizer(optimizer: "type[Optimizer]", traits: "OptimizerTraits") -> None:
    """Let `optimizer._target_=<module>.<class>` choose an optimizer.

    Args:
        optimizer: its class, which takes parameter groups and keyword arguments.
        traits: what plan.py and FSDP must know of it.

    Raises:
        ValueError: the class is not at the top level of a module, or another one has its name.
    """
    from gpt_lightning.optim.optimizer_traits import OPTIMIZER_TRAITS

    OPTIMIZER_TRAITS[register_target("optimizer", optimizer)] = traits


def register_callback(callback: "type[Callback]") -> None:
    """Let `callbacks.<name>._target_=<module>.<class>` choose a callback.

    Args:
        callback: its class, which takes keyword arguments.

    Raises:
        ValueError: the class is not at the top level of a module, or another one has its name.
    """
    register_target("callback", callback)


def register_source_reader(read: Callable[..., Iterable[Document]]) -> None:
    """Let `corpus: {_target_: <module>.<function>}` in the config of a source choose how its documents are read.

    Args:
        read: `read(**arguments)` gives the documents, in the same order at each call. A document is a text, or a conversation: a
            list of `{"role": "user" or "assistant" or "system", "content": text}`. The arguments stand beside `_target_`.

    Raises:
        ValueError: the function is not at the top level of a module, or another one has its name.
    """
    register_target("source reader", read)


def register_curriculum_policy(name: str, policy: Callable[..., Mapping[str, float]]) -> None:
    """Let `curriculum.policy={name: <name>}` choose how mix weights change over the run.

    Args:
        name: the word.
        policy: `policy(progress, weights, **settings)` gives the weights of sources or mixes at one step. `progress` is the
            completed share of the run, from 0 to below 1; `weights` are the shares that the keyframes give the sources at this
            step; `settings` are those beside the name. The result must depend on these arguments alone.

    Raises:
        ValueError: the word has another meaning already.
    """
    _register(CURRICULUM_POLICIES, "curriculum.policy", name, policy)


def _register(registry: dict[str, Part], kind: str, name: str, part: Part) -> None:
    if name in registry and registry[name] is not part:
        raise ValueError(f"{kind} {name!r} exists already: register yours under another name.")
    registry[name] = part
