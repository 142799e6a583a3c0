"""Compose and check a command line before the command starts. Errors are explained in one sentence."""

import difflib
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from running.config.allowed_targets import check_hydra_settings_of_files, check_search_path, check_targets_of_files
from running.config.command_help import version
from running.config.compose import CONF, composing, flatten, hydra_quoted, to_dict
from running.config.path_and_name_settings import check_names, expand_home
from running.sweeps.job_names import excluded_keys
from running.sweeps.sweep_axis_choices import check_exact_range, expand_jobs

_OPTUNA = "hydra_plugins.hydra_optuna_sweeper."
_TIMEOUTS, _MOST_TIMEOUTS = "hydra.launcher.max_num_timeout", 100  # submitit's default is 0: no job is requeued
_SEARCHED = ("train", "plan")  # commands with a validation loss to minimize


def check_command_line(command: str, arguments: list[str]) -> DictConfig | None:
    """Compose the config as Hydra will, and check it. For a sweep, check each choice of each axis.

    The axes of a sweep are settings with several choices on the command line, and `hydra.sweeper.params` of the configs.

    Returns:
        The config of the whole multirun; None without -m.

    Raises:
        ValueError: a flag or setting is invalid or does not exist, a text is given for a number, an axis has the same
            choice twice, a config with axes is used without -m, or a config file changes settings of Hydra itself.
    """
    given = flags_and_settings(arguments)
    if given.experimental_rerun is not None and any(a.partition("=")[0] == "--experiment" for a in arguments):
        raise ValueError("settings are written without --, as experiment=quickstart.")
    if given.experimental_rerun is not None:
        raise ValueError("--experimental-rerun reads a pickle, which can run code: start the run's own command again.")
    if given.shell_completion:
        _check_completion(given.overrides)
        return None
    for argument in given.overrides:
        if "=" not in argument and not argument.startswith("~"):
            raise ValueError(f"'{argument}' says nothing: settings are written key=value.")
    try:
        parsed = OverridesParser.create().parse_overrides(given.overrides)
    except HydraException as error:
        said = str(error).splitlines()[0]
        raise ValueError(
            f"the command line cannot be read: {said.partition('Exception: ')[2] or said}. Signs such as <|[]=, need quotes "
            "inside quotes: 'stop=[\"<|im_end|>\"]'."
        ) from error
    swept = [o for o in parsed if o.is_sweep_override()]
    if swept and not given.multirun:
        raise ValueError("choices separated by commas (a=1,2) need a multirun: add -m after the file's name.")
    if any(o.is_hydra_override() for o in swept):
        raise ValueError("what Hydra does (hydra.…) holds for a whole multirun: only other settings can have choices.")
    return _check_composed(command, given, parsed)


def _check_completion(arguments: Sequence[str]) -> None:
    """Check the arguments of `-sc`, Hydra's shell completion (`-sc install=bash`)."""
    if len(arguments) != 1 or not re.fullmatch("(install|uninstall|query)=(bash|fish|zsh)", arguments[0]):
        raise ValueError("-sc takes one of install, uninstall and query, and a shell: -sc install=bash (or fish, zsh).")


def flags_and_settings(arguments: list[str]) -> Namespace:
    """Parse flags and settings. Errors are ValueErrors; argparse would print its usage and exit with 2."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{message}: flags such as -m stand before all settings, and --help lists them.")

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser._option_string_actions
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_abbreviated = name.startswith("--") and any(flag.startswith(name) for flag in flags)
        if equals and name.startswith("-") and name not in flags and not is_abbreviated:
            raise ValueError(f"settings are written without -, as {argument.lstrip('-')}.")
    for action in parser._actions:
        if "--version" in action.option_strings:
            vars(action)["version"] = version()
    return parser.parse_args(arguments)


def extra_hydra_settings(settings: list[str], config: DictConfig) -> list[str]:
    """Settings of Hydra to add to the command line of a multirun.

    - For every multirun: which settings are not axes, so that job names leave them out.
    - For a search, so that it can be restarted: the sampler uses the run's seed, each batch has `jobs_at_once` trials, and a
      failed job does not end the search.
    - For submitit on Slurm: a job that reaches its time limit is requeued.
    """
    parsed = OverridesParser.create().parse_overrides(settings)
    last = {o.key_or_group: o for o in parsed}  # if a setting is typed twice, the last one counts
    of_files = config.hydra.sweeper.get("params") or {}  # part of the job names even with a single choice
    fixed = [o for key, o in last.items() if not o.is_sweep_override() and key not in of_files]
    axes = [*_axes_of_files(config, parsed), *(o for o in last.values() if o.is_sweep_override())]
    besides = [excluded_keys(fixed, axes)]
    if (folder := str(config.hydra.sweep.dir)).startswith(
        "~"
    ) and "hydra.sweep.dir" not in last:  # Hydra would create a folder called ~
        besides.append(f"hydra.sweep.dir={hydra_quoted(expand_home(folder))}")
    if _searches(config):
        further = {"hydra.sweeper.n_jobs": "${jobs_at_once}", "hydra.sweeper.max_failure_rate": "1.0"}
        if "seed" in config.hydra.sweeper.sampler:
            further["hydra.sweeper.sampler.seed"] = "${seed}"
        besides += [f"{key}={value}" for key, value in further.items() if key not in last]
    goes_on = config.hydra.job.name in ("train", "prepare")  # can resume after the time limit of a Slurm job
    if goes_on and "max_num_timeout" in config.hydra.launcher and _TIMEOUTS not in last:
        besides.append(f"{_TIMEOUTS}={_MOST_TIMEOUTS}")
    return besides


def _check_composed(command: str, given: Namespace, parsed: Sequence[Override]) -> DictConfig | None:
    """Check the composed config of the multirun, if it is one, and of each job."""
    folders, name = _folders(given), given.config_name or command
    for folder in folders:
        file = folder / f"{name.removesuffix('.yaml')}.yaml"
        if (folder, name) != (CONF, command) and file.is_file():
            check_search_path(file)
    further = [f'hydra.searchpath=["file://{folder}"]' for folder in folders[1:]]
    typed = [str(o.input_line) for o in parsed if o.is_hydra_override() and o.key_or_group != "hydra.searchpath"]
    with composing(CONF, command, command):
        ours = _of_hydra(compose(None, typed, return_hydra_config=True))
    with composing(folders[0], name, command):
        for o in parsed:
            if (o.is_add() or o.is_force_add()) and _is_group(o, folders) and not o.package:
                _refuse_second_choice(o, compose(name, further, return_hydra_config=True))
        multirun = None
        if given.multirun:
            said = [*given.overrides, *further]
            loader = GlobalHydra.instance().config_loader()
            multirun = loader.load_configuration(name, said, run_mode=RunMode.MULTIRUN, from_shell=False)
            check_hydra_settings_of_files(_of_hydra(multirun), ours, _said(said))
            of_files = _axes_of_files(multirun, parsed)
            check_targets_of_files([str(o.input_line) for o in of_files])
            parsed = [*of_files, *parsed]
            _refuse_sweeper(command, multirun, parsed)
        defaults: dict[tuple[str, ...], dict[str, Any]] = {}
        for job in expand_jobs(parsed, folders):
            whole = compose(name, [*job, *further], return_hydra_config=True)
            check_hydra_settings_of_files(_of_hydra(whole), ours, _said([*job, *further]))
            if not (given.cfg or given.info):  # these only print the config
                _refuse_open_axes(whole, parsed, is_multirun=bool(given.multirun))
            groups = tuple(text for text, o in zip(job, parsed, strict=True) if _is_group(o, folders))
            if groups not in defaults:
                defaults[groups] = to_dict(compose(name, [*groups, *further]))
            with open_dict(whole):
                del whole["hydra"]
            settings = to_dict(whole)
            _refuse_strangers(settings, defaults=defaults[groups])
            check_names(settings)
    return multirun


def _axes_of_files(config: DictConfig, parsed: Sequence[Override]) -> list[Override]:
    """The axes of the configs that are not on the command line, parsed like typed settings."""
    typed = {o.key_or_group for o in parsed}
    axes = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items() if key not in typed]
    return OverridesParser.create().parse_overrides(axes)


def _refuse_sweeper(command: str, config: DictConfig, parsed: Sequence[Override]) -> None:
    """Check that a search can run, and that intervals are only used with a search."""
    if not _searches(config):
        for o in parsed:
            if o.is_sweep_override() and not o.is_discrete_sweep():
                raise ValueError(
                    f"{o.input_line} is an interval, in which hydra/sweeper=optuna can search: add it, or give choices (a=1,2)."
                )
            check_exact_range(o)
    elif command not in _SEARCHED:
        raise ValueError(f"hydra/sweeper=optuna is for train.py: {command}.py has no validation loss to be minimised.")
    elif find_spec("optuna") is None:
        raise ValueError("hydra/sweeper=optuna needs a package: pip install -e '.[optuna]'.")


def _searches(config: DictConfig) -> bool:
    return str(config.hydra.sweeper._target_).startswith(_OPTUNA)


def _refuse_open_axes(job: DictConfig, parsed: Sequence[Override], *, is_multirun: bool) -> None:
    """Check that each job has one value for every axis, including the axes of configs."""
    settled = {o.key_or_group for o in parsed}
    if missing := [key for key in (job.hydra.sweeper.params or {}) if key not in settled]:
        alone = "such a one cannot be one choice of several"
        mend = alone if is_multirun else f"add -m after the file's name, or choose one ({missing[0]}=…)"
        raise ValueError(f"the config is a sweep, over {' and '.join(missing)}: {mend}.")


def _folders(given: Namespace) -> list[Path]:
    """Folders in which Hydra looks for configs, the main folder first."""
    if "://" in f"{given.config_path} {given.config_dir}":
        raise ValueError("--config-path and --config-dir name folders of this machine, and nothing else.")
    main = CONF.parent / (given.config_path or CONF)  # relative to the script, as in Hydra
    return [main, *([Path(given.config_dir).absolute()] if given.config_dir else [])]


def _is_group(override: Override, folders: Sequence[Path]) -> bool:
    return any((folder / override.key_or_group).is_dir() for folder in folders)


def _refuse_second_choice(added: Override, config: DictConfig) -> None:
    if added.key_or_group in config.hydra.runtime.choices:
        typed = str(added.input_line).lstrip("+")
        raise ValueError(f"{added.key_or_group} is chosen without a +, as each config has one of it: type {typed}.")


def _of_hydra(whole: DictConfig) -> dict[str, Any]:
    """Everything under `hydra` in a composed config, as dotted key -> value, with unresolved interpolations."""
    return dict(flatten(OmegaConf.to_container(whole.hydra, resolve=False)))


def _said(settings: Iterable[str]) -> dict[str, list[str]]:
    """The copy of the command line that Hydra keeps under `hydra`, by key."""
    parsed = OverridesParser.create().parse_overrides(list(settings))
    of = {
        by_hydra: [str(o.input_line) for o in parsed if o.is_hydra_override() is by_hydra] for by_hydra in (True, False)
    }
    return {"overrides.hydra": of[True], "overrides.task": of[False]}


def _refuse_strangers(config: Mapping[str, Any], *, defaults: Mapping[str, Any]) -> None:
    """Check that every setting exists, also those added with `+`, and that numbers are not texts or lists."""
    for key in set(config) - set(defaults) - {"imports"}:
        near = difflib.get_close_matches(key, list(defaults), n=1)
        raise ValueError(f"there is no setting {key}" + (f": did you mean {near[0]}?" if near else "."))
    numbers = {key: value for key, value in flatten(defaults) if isinstance(value, (int, float))}
    for key, value in flatten(config):
        if key in numbers and isinstance(value, list):
            what = "true or false" if isinstance(numbers[key], bool) else "a number"
            choices = ",".join(map(str, value))
            raise ValueError(f"{key} is {value}: it must be {what}; choices are written {key}={choices} after -m.")
        if key in numbers and isinstance(value, str):
            what = "true or false" if isinstance(numbers[key], bool) else f"a number like {numbers[key]}"
            raise ValueError(f"{key} is '{value}', and must be {what}.")
