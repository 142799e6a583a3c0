"""Allow-list of `_target_`: which classes and functions a config file may call.

A config file may come from a stranger. Therefore a `_target_` in a config file may name only a class or function of the
kind that the section needs (an optimizer, a callback, a logger or a corpus), with plain values as arguments. The user
can allow other parts by typing a module that registers them on the command line (`+imports=[my_module]`), and another
callback also by typing the callback's name there. Hydra's own settings (everything under `hydra`: callbacks, log
handlers, launchers, environment variables) come from the command line only, except the axes of a sweep over other
settings.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from yaml import YAMLError

from running.config.bounded_yaml_files import check_yaml_file
from running.config.own_imports import import_attribute
from running.config.refused_lightning_callbacks import check_lightning_callbacks, replaced_callback
from running.config.registered_targets import REGISTERED_TARGETS
from running.config.renamed_targets import RENAMED_TARGETS

OPTIMIZERS: tuple[str, ...] = ("torch.optim", "bitsandbytes.optim", "gpt_lightning.optim")
CALLBACKS: tuple[str, ...] = ("callbacks", "lightning.pytorch.callbacks")
# class -> its name in conf/logger, which is also the extra that installs its package
LOGGING_SERVICES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
LOGGERS = {"CsvMetrics": "csv", **LOGGING_SERVICES}
CORPORA: tuple[str, ...] = ("data_modules.corpora",)
_PLUGINS = (
    "hydra._internal.core_plugins.",
    "hydra_plugins.hydra_joblib_launcher.",
    "hydra_plugins.hydra_submitit_launcher.",
    "hydra_plugins.hydra_optuna_sweeper.",
)
_SAMPLERS = "optuna.samplers."
# set by the config of each command: where Hydra writes, and that it does not log
_OF_FILES = {"run.dir", "sweep.dir", "sweep.subdir", "output_subdir"} | {
    f"{log}_logging.{key}" for log in ("hydra", "job") for key in ("root.level", "disable_existing_loggers")
}
# an axis of a sweep: a setting with several choices
_AXIS = re.compile(r"sweeper\.params\.(?!hydra\b)[\w./]+")
_typed: ContextVar[frozenset[str]] = ContextVar("typed", default=frozenset())
# written by Hydra itself, or checked elsewhere
_BY_HYDRA = ("runtime.", "job.config_name", "job.override_dirname", "searchpath")


def resolve_optimizer(node: Mapping[str, Any]) -> partial[Any]:
    """The optimizer that a config names, as a function of the parameter groups.

    Args:
        node: `_target_` and keyword arguments.

    Raises:
        ValueError: the target is not an allowed optimizer, or an argument is not a plain value.
    """
    return _named(node, "an optimizer", OPTIMIZERS, _is_optimizer, REGISTERED_TARGETS["optimizer"])


@contextmanager
def allow_typed_targets(targets: Iterable[str]) -> Iterator[None]:
    """Inside the context, a config may name these callbacks (dotted names), because the user typed them."""
    token = _typed.set(frozenset(targets))
    try:
        yield
    finally:
        _typed.reset(token)


def typed_targets(settings: Iterable[str]) -> set[str]:
    """Dotted names of the callbacks on a command line, given as settings of the form `key=value`."""
    named: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(settings)):
        key = override.key_or_group
        if key.partition(".")[0] == "callbacks" and not override.is_delete() and not override.is_sweep_override():
            value = override.value()
            named |= {str(target) for target in _targets({"_target_": value} if key.endswith("._target_") else value)}
    return named


def build_callback(node: Mapping[str, Any]) -> Any:
    """Build the callback that a config describes.

    Args:
        node: `_target_` and keyword arguments.

    Raises:
        ValueError: as for `resolve_optimizer`; or the callback rejects its arguments or does not work in a run.
    """
    if isinstance(node, Mapping) and "_target_" in node:
        node = {**node, "_target_": replaced_callback(str(node["_target_"]))}
    build = _named(node, "a callback", CALLBACKS, _is_callback, REGISTERED_TARGETS["callback"])
    check_lightning_callbacks(cast(type, build.func))
    try:
        return build()
    except (ValueError, OSError):
        raise
    except Exception as error:  # Lightning's classes raise their own exceptions
        raise ValueError(f"{node['_target_']} cannot be built: {' '.join(str(error).split()).rstrip('.')}.") from error


def build_logger(node: Mapping[str, Any], **given: Any) -> Any:
    """Build the external logger that a config describes.

    Args:
        node: `_target_` and keyword arguments; empty: no logger.
        given: further arguments, which no config has to set.

    Returns:
        The logger; None if `node` is empty.

    Raises:
        ValueError: as for `build_callback`; or the logger's package is not installed.
    """
    if not node:
        return None
    build = _named(node, f"one of {', '.join(LOGGERS)}", ("callbacks", "lightning.pytorch.loggers"), _is_logger)
    try:
        return build(**given)
    except ModuleNotFoundError as error:
        extra = LOGGERS[build.func.__name__]
        raise ValueError(
            f"logger={extra} needs a package: pip install -e '.[{extra}]', or set another logger=…."
        ) from error
    except Exception as error:
        raise ValueError(f"{node['_target_']} cannot be built: {' '.join(str(error).split()).rstrip('.')}.") from error


def resolve_corpus(node: Mapping[str, Any]) -> Callable[[], Iterable[Any]]:
    """The corpus that a config names, as a picklable function that yields the documents from the start.

    Args:
        node: `_target_` and keyword arguments.

    Raises:
        ValueError: as for `resolve_optimizer`; or the source reader does not accept these arguments.
    """
    read = _named(node, "a corpus", CORPORA, _is_source_reader, REGISTERED_TARGETS["source reader"])
    try:
        inspect.signature(read.func).bind(**read.keywords)
    except TypeError as error:
        raise ValueError(f"corpus: the arguments of {node['_target_']} do not fit: {error}.") from error
    return read


def check_search_path(config_file: Path) -> None:
    """Check that a config file does not set `hydra.searchpath`. A package on that path would be imported by Hydra.

    Raises:
        ValueError: the file sets it, is not YAML, or contains something other than plain values.
    """
    check_yaml_file(config_file)
    try:
        searched = OmegaConf.select(OmegaConf.create(OmegaConf.load(config_file)), "hydra.searchpath")
    except YAMLError as error:
        raise ValueError(
            f"{config_file} is not valid YAML, or contains something other than plain values: {' '.join(str(error).split())}."
        ) from error
    if searched is not None:
        raise _of_the_command_line("hydra.searchpath")


def check_targets_of_files(axes: Iterable[str]) -> None:
    """Check that no sweep axis of a config file names a callback: in the jobs, axes count as typed.

    Args:
        axes: `key=choice,choice` each.

    Raises:
        ValueError: an axis names a callback.
    """
    for axis in axes:
        if axis.startswith("callbacks") and "_target_" in axis:
            raise ValueError(
                f"the axis {axis} of a config file names a callback: type it on the command line to allow it."
            )


def check_hydra_settings_of_files(
    composed: Mapping[str, Any], ours: Mapping[str, Any], said: Mapping[str, Any]
) -> None:
    """Check that Hydra's own settings come from the command line only.

    Args:
        composed: everything composed under `hydra`, interpolations unresolved, as dotted key -> value.
        ours: everything composed under `hydra` without any config file, but with the command line's settings of
            `hydra`.
        said: where Hydra repeats the command line: dotted key -> value.

    Raises:
        ValueError: a config file sets something else, or a target is not one of Hydra's launchers or sweepers.
    """
    ours = {**ours, **said}
    for key, value in composed.items():
        is_plugin = key in ("launcher._target_", "sweeper._target_") and str(value).startswith(_PLUGINS)
        is_plugin |= key == "sweeper.sampler._target_" and str(value).startswith(_SAMPLERS)
        if (key.rpartition(".")[2] == "_target_" and not is_plugin) or any(_targets(value)):
            raise ValueError(f"hydra.{key}={value} may not be called: use one of Hydra's launchers or sweepers.")
        free = key in _OF_FILES or key.startswith(_BY_HYDRA) or _AXIS.fullmatch(key)
        if not free and (key not in ours or ours[key] != value):
            raise _of_the_command_line(f"hydra.{key}")


def _named(
    node: Mapping[str, Any],
    kind: str,
    packages: tuple[str, ...],
    fits: Callable[[Any], bool],
    registered: Mapping[str, Any] | None = None,
) -> partial[Any]:
    """The class or function that a node names, with its arguments bound.

    Args:
        node: `_target_` and keyword arguments.
        kind: the kind of object it must name, for messages.
        packages: packages that may define it.
        fits: whether an object is of that kind.
        registered: registered objects of that kind, by dotted name; None: this kind cannot be registered.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ValueError(f"{node} has no _target_: it must name {kind} with _target_ (to remove it, type ~<its key>).")
    target = str(RENAMED_TARGETS.get(node["_target_"], node["_target_"]))
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    module, _, name = target.rpartition(".")
    found = (registered or {}).get(target)
    if found is None and fits is _is_callback and target in _typed.get():
        found = import_attribute(module, name)
        if found is None:
            raise ValueError(f"_target_={target}: the module {module} has no {name}.")
        if not fits(found):
            raise ValueError(f"_target_={target}: {name} is not a subclass of lightning.pytorch.callbacks.Callback.")
    elif found is None and target.startswith(tuple(f"{package}." for package in packages)) and name[:1] != "_":
        with suppress(ImportError):
            found = getattr(import_module(module), name, None)
    if found is None or not fits(found):
        advice = ""
        if fits is _is_callback:
            advice = f" To allow your own callback, type ++callbacks.<its name>._target_={target}."
        elif registered is not None:
            advice = " To use your own, register it in a module and type +imports=[my_module]."
        known = f", or registered: {', '.join(registered)}" if registered else ""
        raise ValueError(
            f"_target_={target} may not be called from a config: it must be {kind} from {' or '.join(packages)}{known}."
            + advice
        )
    for key in arguments:
        if str(key).startswith("_"):
            raise ValueError(f"{target} has the argument {key}: besides _target_, give only keyword arguments.")
    for inner in _targets(list(arguments.values())):
        raise ValueError(f"an argument of {target} has _target_={inner}: arguments must be plain values.")
    return partial(found, **arguments)


def _is_source_reader(target: Any) -> bool:
    return inspect.isgeneratorfunction(target) or target in REGISTERED_TARGETS["source reader"].values()


def _is_optimizer(target: Any) -> bool:
    from torch.optim import Optimizer  # slow to import, but the target has imported it already

    return isinstance(target, type) and issubclass(target, Optimizer)


def _is_callback(target: Any) -> bool:
    from lightning import Callback  # takes seconds to import

    return isinstance(target, type) and issubclass(target, Callback)


def _is_logger(target: Any) -> bool:
    return isinstance(target, type) and target.__name__ in LOGGERS


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _of_the_command_line(key: str) -> ValueError:
    return ValueError(
        f"{key} is set by a config file: Hydra's own settings may come from the command line only. Remove it from the "
        "file, and type it on the command line to set it."
    )
