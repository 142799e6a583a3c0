"""What a config may set off: three kinds of objects that it may name with `_target_`, and nothing of Hydra's own.

A config may be a stranger's. So no text in it chooses what is called, but for a class or function of the kind that its place
needs, given plain values. Parts of the user's own are registered by a module that is typed on the command line, which no file
can do; a callback may also be typed there itself. And what Hydra itself does (its callbacks, log handlers, launchers,
environment variables: all under `hydra`) is decided on the command line, never in a file, but for the axes of a sweep over
other settings.
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

from running.config.compose import check_yaml_file
from running.config.lightning_callbacks import check_lightning_callbacks, replaced_callback
from running.config.registered_targets import REGISTERED_TARGETS
from running.config.renamed_targets import RENAMED_TARGETS

OPTIMIZERS: tuple[str, ...] = ("torch.optim", "bitsandbytes.optim", "gpt_lightning.optim")
CALLBACKS: tuple[str, ...] = ("callbacks", "lightning.pytorch.callbacks")
LOGGERS = {
    "CsvMetrics": "csv",
    "WandbLogger": "wandb",
    "MLFlowLogger": "mlflow",
}  # and what conf/logger calls them, which is also the extra that installs what they need
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
}  # the verbs' own configs say where Hydra writes, and that it is silent
_AXIS = re.compile(
    r"sweeper\.params\.(?!hydra\b)[\w./]+"
)  # of a sweep: a setting, of which the value is several choices
_typed: ContextVar[frozenset[str]] = ContextVar("typed", default=frozenset())
_BY_HYDRA = ("runtime.", "job.config_name", "job.override_dirname", "searchpath")  # written by it, or looked at before


def resolve_optimizer(node: Mapping[str, Any]) -> partial[Any]:
    """Parameter groups -> the optimizer that a config names.

    Raises:
        ValueError: it names something else, or its arguments are no plain values.
    """
    return _named(node, "an optimizer", OPTIMIZERS, _is_optimizer, REGISTERED_TARGETS["optimizer"])


@contextmanager
def allow_typed_targets(targets: Iterable[str]) -> Iterator[None]:
    """Inside, a config may name these callbacks too, as its user has typed them.

    Args:
        targets: their dotted names; see `typed_targets`.
    """
    token = _typed.set(frozenset(targets))
    try:
        yield
    finally:
        _typed.reset(token)


def typed_targets(settings: Iterable[str]) -> set[str]:
    """The callbacks that a command line names, by dotted name.

    Args:
        settings: what was typed, `key=value` each.
    """
    named: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(settings)):
        key = override.key_or_group
        if key.partition(".")[0] == "callbacks" and not override.is_delete() and not override.is_sweep_override():
            value = override.value()
            named |= {str(target) for target in _targets({"_target_": value} if key.endswith("._target_") else value)}
    return named


def build_callback(node: Mapping[str, Any]) -> Any:
    """The callback that a config describes.

    Raises:
        ValueError: as `optimizer`; or it does not take these arguments, or has no place in a run.
    """
    if isinstance(node, Mapping) and "_target_" in node:
        node = {**node, "_target_": replaced_callback(str(node["_target_"]))}
    build = _named(node, "a callback", CALLBACKS, _is_callback, REGISTERED_TARGETS["callback"])
    check_lightning_callbacks(cast(type, build.func))
    try:
        return build()
    except (ValueError, OSError):
        raise
    except Exception as error:  # the class may be Lightning's, which has exceptions of its own
        raise ValueError(f"{node['_target_']} cannot be built: {' '.join(str(error).split()).rstrip('.')}.") from error


def build_logger(node: Mapping[str, Any], **given: Any) -> Any:
    """The further logger that a config describes, with arguments that no config has to give; None: it describes none.

    Raises:
        ValueError: as `callback`; or its package is not installed.
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


def resolve_corpus(node: Mapping[str, Any]) -> Callable[[], Iterable[Any]]:
    """The documents that a config names, anew at each call. It can be pickled.

    Raises:
        ValueError: as `optimizer`; or the source reader does not take these arguments.
    """
    read = _named(node, "a corpus", CORPORA, _is_source_reader, REGISTERED_TARGETS["source reader"])
    try:
        inspect.signature(read.func).bind(**read.keywords)
    except TypeError as error:
        raise ValueError(f"corpus: the arguments of {node['_target_']} do not fit: {error}.") from error
    return read


def check_search_path(config_file: Path) -> None:
    """A file that names more folders of configs could name a Python package, which Hydra would import to look into it.

    Raises:
        ValueError: it does, or it is no YAML.
    """
    check_yaml_file(config_file)
    try:
        searched = OmegaConf.select(OmegaConf.create(OmegaConf.load(config_file)), "hydra.searchpath")
    except YAMLError as error:
        raise ValueError(f"{config_file} is no YAML of plain values: {' '.join(str(error).split())}.") from error
    if searched is not None:
        raise _of_the_command_line("hydra.searchpath")


def check_targets_of_files(axes: Iterable[str]) -> None:
    """The axes of a sweep that a file has are typed again for each of its jobs; so none of them may name a callback.

    Args:
        axes: `key=choice,choice` each.

    Raises:
        ValueError: one does.
    """
    for axis in axes:
        if axis.startswith("callbacks") and "_target_" in axis:
            raise ValueError(f"the config's axis {axis} names a callback: type it on the command line if you mean it.")


def check_hydra_settings_of_files(
    composed: Mapping[str, Any], ours: Mapping[str, Any], said: Mapping[str, Any]
) -> None:
    """Let only the command line decide what Hydra does.

    Args:
        composed: all that was composed under `hydra`, interpolations unresolved, as dotted key -> value.
        ours: the same of no config at all, but with what the command line says of `hydra`.
        said: what Hydra must repeat of the command line, under the keys where it does.

    Raises:
        ValueError: a config says something else, or a target is no launcher or sweeper of Hydra's.
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


def _named(
    node: Mapping[str, Any],
    kind: str,
    packages: tuple[str, ...],
    fits: Callable[[Any], bool],
    registered: Mapping[str, Any] | None = None,
) -> partial[Any]:
    """What a node names, with the arguments that stand beside its name.

    Args:
        node: `_target_` and arguments.
        kind: what it must name, for messages.
        packages: where that may be defined.
        fits: whether an object is of that kind.
        registered: those of the user's own, by dotted name; None: this kind has none.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ValueError(f"{node} names nothing: {kind} is written with its _target_ (and left out with ~<its key>).")
    target = str(RENAMED_TARGETS.get(node["_target_"], node["_target_"]))
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    module, _, name = target.rpartition(".")
    found = (registered or {}).get(target)
    if found is None and fits is _is_callback and target in _typed.get():
        found = _imported(module, name)
        if found is None:
            raise ValueError(f"_target_={target}: the module {module} has no {name}.")
        if not fits(found):
            raise ValueError(f"_target_={target}: {name} is no subclass of lightning.pytorch.callbacks.Callback.")
    elif found is None and target.startswith(tuple(f"{package}." for package in packages)) and name[:1] != "_":
        with suppress(ImportError):
            found = getattr(import_module(module), name, None)
    if found is None or not fits(found):
        of_ones_own = ""
        if fits is _is_callback:
            of_ones_own = f" One of your own you allow by typing it: ++callbacks.<its name>._target_={target}."
        elif registered is not None:
            of_ones_own = " To use your own, register it in a module and type +imports=[my_module]."
        known = f", or registered: {', '.join(registered)}" if registered else ""
        raise ValueError(
            f"_target_={target} may not be called from a config: it must be {kind} of {' or '.join(packages)}{known}."
            + of_ones_own
        )
    for key in arguments:
        if str(key).startswith("_"):
            raise ValueError(f"{target} is given {key}: beside _target_ there may be arguments by name only.")
    for inner in _targets(list(arguments.values())):
        raise ValueError(f"{target} is given something with _target_={inner}: it takes plain values only.")
    return partial(found, **arguments)


def _imported(module: str, name: str) -> Any:
    """What a user's own module has under a name; None: nothing.

    Raises:
        ValueError: the module cannot be imported.
    """
    try:
        return getattr(import_module(module), name, None)
    except Exception as error:  # it is the user's: anything can be wrong with it
        why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
        raise ValueError(
            f"{module}.{name} cannot be imported ({why}): install its package, or put its folder on PYTHONPATH."
        ) from error


def _is_source_reader(target: Any) -> bool:
    return inspect.isgeneratorfunction(target) or target in REGISTERED_TARGETS["source reader"].values()


def _is_optimizer(target: Any) -> bool:
    from torch.optim import Optimizer  # seconds of import, which a target of torch has cost already

    return isinstance(target, type) and issubclass(target, Optimizer)


def _is_callback(target: Any) -> bool:
    from lightning import Callback  # as above

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
