"""Allow-list for `_target_`, and for settings under `hydra` in config files.

Config files are untrusted. A `_target_` in a file may only name a class or function of the expected kind from the packages below,
and its arguments must be plain values. The user's own callbacks must be typed on the command line. Settings of Hydra itself
(callbacks, log handlers, launchers, environment variables: everything under `hydra`) must also be typed. The only exceptions are
the folders Hydra writes to and the axes of a sweep over other settings.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from yaml import YAMLError

from running.config.compose import check_yaml_file
from running.config.lightning_callbacks import check_lightning_callbacks, replaced_callback
from running.config.renamed_targets import RENAMED_TARGETS

OPTIMIZERS: tuple[str, ...] = ("torch.optim", "bitsandbytes.optim", "gpt_lightning.optim")
CALLBACKS: tuple[str, ...] = ("callbacks", "lightning.pytorch.callbacks")
LOGGERS = {
    "CsvMetrics": "csv",
    "WandbLogger": "wandb",
    "MLFlowLogger": "mlflow",
}  # class -> name in conf/logger, which is also the name of the extra that installs its package
CORPORA: tuple[str, ...] = ("data_modules.corpora",)
_PLUGINS = (
    "hydra._internal.core_plugins.",
    "hydra_plugins.hydra_joblib_launcher.",
    "hydra_plugins.hydra_submitit_launcher.",
    "hydra_plugins.hydra_optuna_sweeper.",
)
_SAMPLERS = "optuna.samplers."
_OF_FILES = {"run.dir", "sweep.dir", "sweep.subdir", "output_subdir"} | {
    f"{log}_logging.{key}" for log in ("hydra", "job") for key in ("root.level", "disable_existing_loggers")
}  # where Hydra writes, and that it does not log
_AXIS = re.compile(r"sweeper\.params\.(?!hydra\b)[\w./]+")  # an axis of a sweep: setting -> choices
_typed: ContextVar[frozenset[str]] = ContextVar("typed", default=frozenset())
_BY_HYDRA = ("runtime.", "job.config_name", "job.override_dirname", "searchpath")  # written by Hydra, or checked before


def resolve_optimizer(node: Mapping[str, Any]) -> partial[Any]:
    """The optimizer class of a config with its settings bound; call it with parameter groups.

    Raises:
        ValueError: the target is not an allowed optimizer, or a setting is not a plain value.
    """
    target = str(node.get("_target_")) if isinstance(node, Mapping) else ""
    packages = (*OPTIMIZERS, target.rpartition(".")[0]) if _is_registered(target) else OPTIMIZERS
    return _named(node, "an optimizer", packages, _is_optimizer)


@contextmanager
def allow_typed_targets(targets: Iterable[str]) -> Iterator[None]:
    """Context in which a config may also name these callbacks, because the user typed them on the command line.

    Args:
        targets: dotted names of callbacks, from `typed_targets`.
    """
    token = _typed.set(frozenset(targets))
    try:
        yield
    finally:
        _typed.reset(token)


def typed_targets(settings: Iterable[str]) -> set[str]:
    """Dotted names of the callbacks on a command line.

    Args:
        settings: the typed settings, `key=value` each.
    """
    named: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(settings)):
        key = override.key_or_group
        if key.partition(".")[0] == "callbacks" and not override.is_delete() and not override.is_sweep_override():
            value = override.value()
            named |= {str(target) for target in _targets({"_target_": value} if key.endswith("._target_") else value)}
    return named


def build_callback(node: Mapping[str, Any]) -> Any:
    """Build the callback that a config describes.

    Raises:
        ValueError: the target is not an allowed callback, does not accept the arguments, or cannot be used in a run.
    """
    if isinstance(node, Mapping) and "_target_" in node:
        node = {**node, "_target_": replaced_callback(str(node["_target_"]))}
    build = _named(node, "a callback", CALLBACKS, _is_callback)
    check_lightning_callbacks(cast(type, build.func))
    try:
        return build()
    except (ValueError, OSError):
        raise
    except Exception as error:  # Lightning has its own exception classes
        raise ValueError(f"{node['_target_']} cannot be built: {' '.join(str(error).split()).rstrip('.')}.") from error


def build_logger(node: Mapping[str, Any], **given: Any) -> Any:
    """Build the additional logger that a config describes.

    Args:
        node: the section `logger`; empty: no additional logger.
        given: arguments that do not come from the config.

    Returns:
        The logger, or None without one.

    Raises:
        ValueError: the target is not an allowed logger, its package is not installed, or it cannot be built.
    """
    if not node:
        return None
    build = _named(node, f"one of {', '.join(LOGGERS)}", ("callbacks", "lightning.pytorch.loggers"), _is_logger)
    try:
        return build(**given)
    except ModuleNotFoundError as error:
        extra = LOGGERS[build.func.__name__]
        raise ValueError(
            f"logger={extra} needs a package: pip install -e '.[{extra}]', or take another logger=…."
        ) from error
    except Exception as error:
        raise ValueError(f"{node['_target_']} cannot be built: {' '.join(str(error).split()).rstrip('.')}.") from error


def resolve_corpus(node: Mapping[str, Any]) -> Callable[[], Iterator[Any]]:
    """The generator function of a corpus: each call iterates over all documents again. It can be pickled.

    Raises:
        ValueError: the target is not an allowed corpus, or a setting is not a plain value.
    """
    return _named(node, "a corpus", CORPORA, inspect.isgeneratorfunction)


def check_search_path(config_file: Path) -> None:
    """Check that a config file does not set `hydra.searchpath`: Hydra would import a package named there.

    Raises:
        ValueError: the file sets it, or is not YAML.
    """
    check_yaml_file(config_file)
    try:
        searched = OmegaConf.select(OmegaConf.create(OmegaConf.load(config_file)), "hydra.searchpath")
    except YAMLError as error:
        raise ValueError(f"{config_file} is no YAML of plain values: {' '.join(str(error).split())}.") from error
    if searched is not None:
        raise _of_the_command_line("hydra.searchpath")


def check_targets_of_files(axes: Iterable[str]) -> None:
    """Check that no axis of a sweep in a config file names a callback: the jobs receive axes as typed settings.

    Args:
        axes: `key=choice,choice` each.

    Raises:
        ValueError: an axis names a callback.
    """
    for axis in axes:
        if axis.startswith("callbacks") and "_target_" in axis:
            raise ValueError(f"the config's axis {axis} names a callback: type it on the command line if you mean it.")


def check_hydra_settings_of_files(
    composed: Mapping[str, Any], ours: Mapping[str, Any], said: Mapping[str, Any]
) -> None:
    """Check that config files change no setting of Hydra except the allowed ones.

    Args:
        composed: everything composed under `hydra`, as dotted key -> value, with unresolved interpolations.
        ours: the same without any config file, but with the command line's settings of `hydra`.
        said: the copy of the command line that Hydra keeps under `hydra`, by key.

    Raises:
        ValueError: a config file changes a setting, or a target is not a launcher or sweeper of Hydra.
    """
    ours = {**ours, **said}
    for key, value in composed.items():
        is_plugin = key in ("launcher._target_", "sweeper._target_") and str(value).startswith(_PLUGINS)
        is_plugin |= key == "sweeper.sampler._target_" and str(value).startswith(_SAMPLERS)
        if (key.rpartition(".")[2] == "_target_" and not is_plugin) or any(_targets(value)):
            raise ValueError(f"hydra.{key}={value} may not be called: only Hydra's own launchers and sweepers may.")
        free = key in _OF_FILES or key.startswith(_BY_HYDRA) or _AXIS.fullmatch(key)
        if not free and (key not in ours or ours[key] != value):
            raise _of_the_command_line(f"hydra.{key}")


def _named(node: Mapping[str, Any], kind: str, packages: tuple[str, ...], fits: Callable[[Any], bool]) -> partial[Any]:
    """Resolve `_target_` if it is allowed, and bind the other keys as arguments."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ValueError(f"{node} names nothing: {kind} is written with its _target_ (and left out with ~<its key>).")
    target, arguments = (
        RENAMED_TARGETS.get(node["_target_"], node["_target_"]),
        {key: value for key, value in node.items() if key != "_target_"},
    )
    module, _, name = str(target).rpartition(".")
    is_own = target in _typed.get() and fits is _is_callback
    found = None
    if is_own:
        found = _imported(module, name)
    elif f"{module}.".startswith(tuple(f"{package}." for package in packages)) and not name.startswith("_"):
        try:
            found = getattr(import_module(module), name, None)
        except ImportError:
            found = None
    if is_own and found is None:
        raise ValueError(f"_target_={target}: the module {module} has no {name}.")
    if is_own and not fits(found):
        raise ValueError(f"_target_={target}: {name} is no subclass of lightning.pytorch.callbacks.Callback.")
    if found is None or not fits(found):
        of_ones_own = " One of your own you allow by typing it: ++callbacks.<its name>._target_=" + str(target) + "."
        raise ValueError(
            f"_target_={target} may not be called from a config: it must be {kind} of {' or '.join(packages)}."
            + of_ones_own * (fits is _is_callback)
        )
    for key in arguments:
        if str(key).startswith("_"):
            raise ValueError(f"{target} is given {key}: beside _target_ there may be arguments by name only.")
    for inner in _targets(list(arguments.values())):
        raise ValueError(f"{target} is given something with _target_={inner}: it takes plain values only.")
    return partial(found, **arguments)


def _imported(module: str, name: str) -> Any:
    """Import a module of the user and get a name from it; None: the module does not have the name.

    Raises:
        ValueError: the module cannot be imported.
    """
    try:
        return getattr(import_module(module), name, None)
    except Exception as error:  # user code can raise anything
        why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
        raise ValueError(
            f"{module}.{name} cannot be imported ({why}): install its package, or put its folder on PYTHONPATH."
        ) from error


def _is_registered(target: str) -> bool:
    """Whether an imported module of the user has registered an optimizer under this name."""
    if target.rpartition(".")[0] not in sys.modules or target.startswith(OPTIMIZERS):
        return False
    from gpt_lightning.optim.optimizer_traits import OPTIMIZER_TRAITS as REGISTERED  # imports torch

    return target in REGISTERED


def _is_optimizer(target: Any) -> bool:
    from torch.optim import Optimizer  # takes seconds; only needed if the target has imported torch

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
        f"{key} is set by a config file: what Hydra itself does is decided on the command line alone. Take it out of the file, "
        "and type it if you mean it."
    )
