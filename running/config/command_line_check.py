"""Compose and check a command line as Hydra will, before anything is done. A mistake gives a one-sentence error."""

import difflib
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from running.config.allowed_targets import check_hydra_settings_of_files, check_search_path, check_targets_of_files
from running.config.command_help import version
from running.config.compose import CONF, composing, flatten, hydra_quoted, to_dict
from running.config.composed_run import compose_run, without_hydra
from running.config.job_names import excluded_keys
from running.config.path_and_name_settings import check_names, expand_home
from running.config.sweep_axis_choices import check_exact_range, expand_jobs

_OPTUNA = "hydra_plugins.hydra_optuna_sweeper."
_TIMEOUTS, _MOST_TIMEOUTS = "hydra.launcher.max_num_timeout", 100  # Hydra's default is 0: no job is requeued
_SEARCHED = ("train", "plan")  # commands whose runs have a validation loss to minimise


class CheckedCommandLine(NamedTuple):
    """What a command line asks for. Both `run` and `multirun` include the `hydra` settings."""

    run: DictConfig | None  # config of a single run; None: a multirun, or Hydra only prints something
    multirun: DictConfig | None  # config of a multirun as a whole


def check_command_line(command: str, arguments: list[str]) -> CheckedCommandLine:
    """Compose the config that the arguments ask for, as Hydra will, and check the config; for a sweep, check every
    choice of every axis.

    The axes of a sweep are the settings with several choices on the command line, and those of `hydra.sweeper.params`.

    Args:
        command: name of the command, such as train.
        arguments: the command line after the script's name.

    Returns:
        The composed config.

    Raises:
        ValueError: as for `compose_config`; or a setting does not exist, a number has the value of a string, an axis
            has a choice twice, a config with axes is not started as a multirun, or a config file sets one of Hydra's
            own settings.
    """
    given = flags_and_settings(arguments)
    if given.experimental_rerun is not None and any(a.partition("=")[0] == "--experiment" for a in arguments):
        raise ValueError("settings are written without --, for example experiment=quickstart.")
    if given.experimental_rerun is not None:
        raise ValueError(
            "--experimental-rerun reads a pickle, which can run code: run the original command again instead."
        )
    if given.shell_completion:
        _check_completion(given.overrides)
        return CheckedCommandLine(None, None)
    for argument in given.overrides:
        if "=" not in argument and not argument.startswith("~"):
            raise ValueError(f"'{argument}' is not a setting: settings have the form key=value.")
    try:
        parsed = OverridesParser.create().parse_overrides(given.overrides)
    except HydraException as error:
        said = str(error).splitlines()[0]
        raise ValueError(
            f"the command line cannot be read: {said.partition('Exception: ')[2] or said}. Characters such as <|[]=, "
            "need quotes inside quotes: 'stop=[\"<|im_end|>\"]'."
        ) from error
    swept = [o for o in parsed if o.is_sweep_override()]
    if swept and not given.multirun:
        raise ValueError(f"{swept[0].input_line} has several values: add -m after the script's name.")
    if any(o.is_hydra_override() for o in swept):
        raise ValueError(
            "settings of Hydra itself (hydra.…) apply to the whole multirun: only other settings can have several "
            "values."
        )
    return _check_composed(command, given, parsed)


def _check_completion(arguments: Sequence[str]) -> None:
    """Check the arguments of `-sc`, with which Hydra prints a completion script or completions."""
    if len(arguments) != 1 or not re.fullmatch("(install|uninstall|query)=(bash|fish|zsh)", arguments[0]):
        raise ValueError(
            "-sc needs install, uninstall or query with a shell (bash, fish or zsh), such as -sc install=bash."
        )


def flags_and_settings(arguments: list[str]) -> Namespace:
    """Parse the flags and settings of a command line.

    Args:
        arguments: the command line after the script's name.

    Raises:
        ValueError: the arguments are wrong, where argparse would print its usage and exit with 2.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{message}: put flags such as -m before all settings; --help lists the flags.")

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser._option_string_actions
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_abbreviated = name.startswith("--") and any(flag.startswith(name) for flag in flags)
        if equals and name.startswith("-") and name not in flags and not is_abbreviated:
            raise ValueError(f"settings are written without -: type {argument.lstrip('-')}.")
    for action in parser._actions:
        if "--version" in action.option_strings:
            vars(action)["version"] = version()
    return parser.parse_args(arguments)


def extra_hydra_settings(settings: list[str], config: DictConfig) -> list[str]:
    """Settings that Hydra needs for a multirun in addition to the typed settings.

    These settings exclude settings that are not axes from job names. With a search, the sampler uses the run's seed,
    the search asks for as many trials as run at the same time, and a failed job does not end the other jobs, so that
    the search can be restarted. With submitit on Slurm, a job that reaches its time limit is queued again.

    Args:
        settings: typed settings, `key=value` each.
        config: the config of the multirun, with `hydra`.
    """
    parsed = OverridesParser.create().parse_overrides(settings)
    last = {o.key_or_group: o for o in parsed}  # the last one counts if a setting is typed twice
    of_files = config.hydra.sweeper.get("params") or {}  # axes of files are in job names, even with one typed choice
    fixed = [o for key, o in last.items() if not o.is_sweep_override() and key not in of_files]
    axes = [*_axes_of_files(config, parsed), *(o for o in last.values() if o.is_sweep_override())]
    besides = [excluded_keys(fixed, axes)]
    # Hydra creates this folder and does not expand ~
    if (folder := str(config.hydra.sweep.dir)).startswith("~") and "hydra.sweep.dir" not in last:
        besides.append(f"hydra.sweep.dir={hydra_quoted(expand_home(folder))}")
    if _searches(config):
        further = {"hydra.sweeper.n_jobs": "${jobs_at_once}", "hydra.sweeper.max_failure_rate": "1.0"}
        if "seed" in config.hydra.sweeper.sampler:
            further["hydra.sweeper.sampler.seed"] = "${seed}"
        besides += [f"{key}={value}" for key, value in further.items() if key not in last]
    # these commands continue where the time limit of a cluster's job stopped them
    goes_on = config.hydra.job.name in ("train", "prepare")
    if goes_on and "max_num_timeout" in config.hydra.launcher and _TIMEOUTS not in last:
        besides.append(f"{_TIMEOUTS}={_MOST_TIMEOUTS}")
    return besides


def _check_composed(command: str, given: Namespace, parsed: Sequence[Override]) -> CheckedCommandLine:
    """Check what Hydra will compose for the multirun, if this is one, and for its jobs."""
    folders, name = _folders(given), given.config_name or command
    for folder in folders:
        file = folder / f"{name.removesuffix('.yaml')}.yaml"
        if (folder, name) != (CONF, command) and file.is_file():
            check_search_path(file)
    typed = [str(o.input_line) for o in parsed if o.is_hydra_override() and o.key_or_group != "hydra.searchpath"]
    ours = _hydra_without_files(command, *typed)
    with composing(folders, name, command):
        for o in parsed:
            if (o.is_add() or o.is_force_add()) and _is_group(o, folders) and not o.package:
                _refuse_second_choice(o, compose(name, return_hydra_config=True))
        multirun = None
        if given.multirun:
            said = given.overrides
            loader = GlobalHydra.instance().config_loader()
            multirun = loader.load_configuration(name, said, run_mode=RunMode.MULTIRUN, from_shell=False)
            check_hydra_settings_of_files(_of_hydra(multirun), ours, _said(said))
            of_files = _axes_of_files(multirun, parsed)
            check_targets_of_files([str(o.input_line) for o in of_files])
            parsed = [*of_files, *parsed]
            _refuse_sweeper(command, multirun, parsed)
        for job in expand_jobs(parsed, folders):
            whole, before_values = compose_run(name, job)
            check_hydra_settings_of_files(_of_hydra(whole), ours, _said(job))
            if not (given.cfg or given.info):  # these only print the config
                _refuse_open_axes(whole, parsed, is_multirun=bool(given.multirun))
            settings = to_dict(without_hydra(whole))
            _refuse_strangers(settings, defaults=to_dict(before_values))
            check_names(settings)
    prints_only = given.cfg or given.info or given.hydra_help or given.resolve
    is_run = not (given.multirun or prints_only) and whole.hydra.mode != RunMode.MULTIRUN
    return CheckedCommandLine(whole if is_run else None, multirun)


@cache
def _hydra_without_files(command: str, *typed: str) -> dict[str, Any]:
    """Everything that Hydra sets under `hydra` without any config file, as `_of_hydra`.

    Args:
        command: name of the command.
        typed: settings of `hydra` on the command line.
    """
    with composing([CONF], command, command):
        return _of_hydra(compose(None, list(typed), return_hydra_config=True))


def _axes_of_files(config: DictConfig, parsed: Sequence[Override]) -> list[Override]:
    """Axes in config files that the command line does not set, parsed as if they were typed."""
    typed = {o.key_or_group for o in parsed}
    axes = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items() if key not in typed]
    return OverridesParser.create().parse_overrides(axes)


def _refuse_sweeper(command: str, config: DictConfig, parsed: Sequence[Override]) -> None:
    """Refuse a search that lacks something, and an interval without a search."""
    if not _searches(config):
        for o in parsed:
            if o.is_sweep_override() and not o.is_discrete_sweep():
                raise ValueError(
                    f"{o.input_line} is an interval, which needs a search: add hydra/sweeper=optuna, or list values "
                    "(a=1,2)."
                )
            check_exact_range(o)
    elif command not in _SEARCHED:
        raise ValueError(f"hydra/sweeper=optuna is for train.py: {command}.py has no validation loss to minimise.")
    elif find_spec("optuna") is None:
        raise ValueError("hydra/sweeper=optuna needs a package: pip install -e '.[optuna]'.")


def _searches(config: DictConfig) -> bool:
    return str(config.hydra.sweeper._target_).startswith(_OPTUNA)


def _refuse_open_axes(job: DictConfig, parsed: Sequence[Override], *, is_multirun: bool) -> None:
    """Refuse a job that leaves an axis of a config file open. A job needs one choice of every axis."""
    settled = {o.key_or_group for o in parsed}
    if missing := [key for key in (job.hydra.sweeper.params or {}) if key not in settled]:
        alone = "a config with axes cannot itself be one of several choices"
        mend = alone if is_multirun else f"add -m after the script's name, or choose one value ({missing[0]}=…)"
        raise ValueError(f"the config is a sweep, over {' and '.join(missing)}: {mend}.")


def _folders(given: Namespace) -> list[Path]:
    """Folders where Hydra will look for configs, without its own. The first one holds the main config."""
    if "://" in f"{given.config_path} {given.config_dir}":
        raise ValueError("--config-path and --config-dir must be local folders, without ://.")
    if given.config_dir and not Path(given.config_dir).is_dir():
        raise ValueError(f"--config-dir {given.config_dir} does not exist: it must be a folder with configs.")
    main = CONF.parent / (given.config_path or CONF)  # relative to the script, as in Hydra
    return [main, *([Path(given.config_dir).absolute()] if given.config_dir else [])]


def _is_group(override: Override, folders: Sequence[Path]) -> bool:
    return any((folder / override.key_or_group).is_dir() for folder in folders)


def _refuse_second_choice(added: Override, config: DictConfig) -> None:
    if added.key_or_group in config.hydra.runtime.choices:
        typed = str(added.input_line).lstrip("+")
        raise ValueError(f"{added.key_or_group} is already in the config: type it without +, as {typed}.")


def _of_hydra(whole: DictConfig) -> dict[str, Any]:
    """Everything that a composed config sets under `hydra`, interpolations unresolved, as dotted key -> value."""
    return dict(flatten(OmegaConf.to_container(whole.hydra, resolve=False)))


def _said(settings: Iterable[str]) -> dict[str, list[str]]:
    """How Hydra repeats a command line under `hydra`: dotted key -> list of settings."""
    parsed = OverridesParser.create().parse_overrides(list(settings))
    of = {
        by_hydra: [str(o.input_line) for o in parsed if o.is_hydra_override() is by_hydra] for by_hydra in (True, False)
    }
    return {"overrides.hydra": of[True], "overrides.task": of[False]}


def _refuse_strangers(config: Mapping[str, Any], *, defaults: Mapping[str, Any]) -> None:
    """Refuse settings that nothing reads, even with a `+`, and strings where a number belongs."""
    for key in set(config) - set(defaults) - {"imports"}:
        near = difflib.get_close_matches(key, list(defaults), n=1)
        raise ValueError(f"there is no setting {key}" + (f": did you mean {near[0]}?" if near else "."))
    numbers = {key: value for key, value in flatten(defaults) if isinstance(value, (int, float))}
    for key, value in flatten(config):
        if key in numbers and isinstance(value, list):
            what = "true or false" if isinstance(numbers[key], bool) else "a number"
            choices = ",".join(map(str, value))
            raise ValueError(f"{key} is {value}: it must be {what}; for a sweep, type -m {key}={choices}.")
        if key in numbers and isinstance(value, str):
            what = "true or false" if isinstance(numbers[key], bool) else f"a number like {numbers[key]}"
            raise ValueError(f"{key} is '{value}': it must be {what}.")
