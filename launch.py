"""What the verbs share: the command line and errors in one sentence.

A verb is a file like train.py: a plain function of a dict, and a shell of @hydra.main around it. Hydra and OmegaConf end
here; what goes on to the packages are dicts, dataclasses and objects. What verbs are made of lies in
`running/`.
"""

import difflib
import os
import re
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from running import multirun, ranks
from running.allowed_targets import refuse_hydra_of_files, refuse_search_path
from running.composing import (
    CONF,
    compose_config,
    composing,
    flatten,
    group_choices,
    hydra_quoted,
    path_of,
    read_choice,
    read_config,
    to_dict,
    write_config,
)

__all__ = [
    "CONF",
    "check_command_line",
    "compose_config",
    "flatten",
    "group_choices",
    "path_of",
    "quote_texts",
    "read_choice",
    "read_config",
    "run",
    "start",
    "to_dict",
    "write_config",
]
TEXTS = {"prompt", "pattern"}  # settings that hold ordinary text
PATHS = {
    "run",
    "checkpoint",
    "log_dir",
    "out_dir",
    "runs",
    "mix_law",
    "input",
    "output",
    "init_from",
    "branch.run",
    "resume",
    "data_dir",
    "runs_dir",
}  # a sweep's runs have = and , in their names


_SIGNS = re.compile(r"(?!.*\$\{)[^\w./,*?:+@%-]")  # with which Hydra begins something else; ${…} is meant for it


def start(hydra_main: Callable[[], None], verb: str) -> None:
    """Run a verb: check the command line first, so that a typo costs one sentence and not a page."""
    arguments = quote_texts(sys.argv[1:])
    try:
        check_command_line(verb, arguments)
        given = _parsed(arguments)
        if given.multirun:
            ranks.refuse_multirun()
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = [*arguments, *([_not_swept(given.overrides)] if given.multirun else [])]
    multirun.here = multirun.Multirun()
    hydra_main()
    multirun.here.end()


def run(verb: Callable[[dict[str, Any]], Any], config: DictConfig) -> None:
    """Call a verb with its config as a plain dict; as a job of a multirun, in a process of its own.

    A ValueError or OSError is an answer to the user and becomes one sentence; GPT_LIGHTNING_TRACEBACK=1 shows the rest.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        multirun.run_as_process(config)
        return
    try:
        verb(to_dict(config))
    except KeyboardInterrupt:
        print("error: stopped by SIGINT before there was anything to save.", file=sys.stderr)
        ranks.leave(130)
    except Exception as error:
        if code := getattr(error, "exit_code", None):
            if isinstance(error, ranks.RankLost):  # of the other ends the run itself has said all
                sys.stderr.write(f"error: {error}\n")  # in one piece: other ranks say the same
            ranks.leave(code)
        if not isinstance(error, (ValueError, OSError)):
            raise
        if os.environ.get("GPT_LIGHTNING_TRACEBACK"):
            traceback.print_exc()
        ranks.leave(f"error: {error}")


def quote_texts(arguments: list[str]) -> list[str]:
    """The same arguments, with ordinary text as it is typed made fit for Hydra, which reads commas, brackets and quotes."""
    quoted = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        is_text = key in TEXTS or (key.rpartition(".")[2] == "path" and text[:1] not in ("", '"', "'"))
        if key in ("runs", "mix_law") and "," in text and not set(text) & set("=[\"'"):
            argument = f"{key}=[{text}]"
        is_path = key in PATHS and text[:1] not in ("", '"', "'", "[") and ("=" in text or _SIGNS.search(text))
        if equals and (is_text or is_path):
            argument = f"{key}={hydra_quoted(text)}"
        quoted.append(argument)
    return quoted


def check_command_line(verb: str, arguments: list[str]) -> None:
    """Compose once what the arguments ask for, as Hydra will; of a sweep, each choice of each axis.

    Raises:
        ValueError: as `compose_config`; or a setting is none, a text stands where a number belongs, or a config file says what
            Hydra itself shall do.
    """
    given = _parsed(arguments)
    if given.experimental_rerun is not None:
        raise ValueError("--experimental-rerun reads a pickle, which can run code: start the run's own command again.")
    for argument in given.overrides:
        if "=" not in argument and not argument.startswith("~"):
            raise ValueError(f"'{argument}' says nothing: settings are written key=value.")
    try:
        parsed = OverridesParser.create().parse_overrides(given.overrides)
    except HydraException as error:
        raise ValueError(
            f"the command line cannot be read: {str(error).splitlines()[0]}. Signs such as <|[]=, need quotes inside quotes: "
            "'stop=[\"<|im_end|>\"]'."
        ) from error
    swept = [o for o in parsed if o.is_sweep_override()]
    if swept and not given.multirun:
        raise ValueError("choices separated by commas (a=1,2) need a multirun: add -m after the file's name.")
    if any(o.is_hydra_override() for o in swept):
        raise ValueError("what Hydra does (hydra.…) holds for a whole multirun: only other settings can have choices.")
    choices = [
        [f"{o.get_key_element()}={choice}" for choice in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    first = [texts[0] for texts in choices]
    others = ([*first[:n], text, *first[n + 1 :]] for n, texts in enumerate(choices) for text in texts[1:])
    _check_jobs(verb, given, parsed, [first, *others])


def _parsed(arguments: list[str]) -> Namespace:
    """A command line's flags and settings, where argparse would print a page and exit with 2."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{message}: flags such as -m stand before all settings, and --help lists them.")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args(arguments)


def _check_jobs(verb: str, given: Namespace, parsed: Sequence[Override], jobs: Iterable[list[str]]) -> None:
    """Check what Hydra will compose for each of some jobs, and for the multirun that they are of."""
    folders, name = _folders(given), given.config_name or verb
    for folder in folders:
        file = folder / f"{name.removesuffix('.yaml')}.yaml"
        if (folder, name) != (CONF, verb) and file.is_file():
            refuse_search_path(file)
    further = [f'hydra.searchpath=["file://{folder}"]' for folder in folders[1:]]
    typed = [str(o.input_line) for o in parsed if o.is_hydra_override() and o.key_or_group != "hydra.searchpath"]
    with composing(CONF, verb, verb):
        ours = _of_hydra(compose(None, typed, return_hydra_config=True))
    with composing(folders[0], name, verb):
        defaults: dict[tuple[str, ...], dict[str, Any]] = {}
        for job in jobs:
            whole = compose(name, [*job, *further], return_hydra_config=True)
            refuse_hydra_of_files(_of_hydra(whole), ours, _said([*job, *further]))
            groups = tuple(text for text, o in zip(job, parsed, strict=True) if _is_group(o, folders))
            if groups not in defaults:
                defaults[groups] = to_dict(compose(name, [*groups, *further]))
            with open_dict(whole):
                del whole["hydra"]
            _refuse_strangers(to_dict(whole), defaults=defaults[groups])
        if given.multirun:
            said = [*given.overrides, *further]
            loader = GlobalHydra.instance().config_loader()
            whole = loader.load_configuration(name, said, run_mode=RunMode.MULTIRUN, from_shell=False)
            refuse_hydra_of_files(_of_hydra(whole), ours, _said(said))


def _folders(given: Namespace) -> list[Path]:
    """Where Hydra will look for configs, its own apart: first of all for the one that is named."""
    if "://" in f"{given.config_path} {given.config_dir}":
        raise ValueError("--config-path and --config-dir name folders of this machine, and nothing else.")
    main = CONF.parent / (given.config_path or CONF)  # as Hydra does, beside the verb
    return [main, *([Path(given.config_dir).absolute()] if given.config_dir else [])]


def _is_group(override: Override, folders: Sequence[Path]) -> bool:
    return any((folder / override.key_or_group).is_dir() for folder in folders)


def _of_hydra(whole: DictConfig) -> dict[str, Any]:
    """All that a composed config says under `hydra`, interpolations unresolved, as dotted key -> value."""
    return dict(flatten(OmegaConf.to_container(whole.hydra, resolve=False)))


def _said(settings: Iterable[str]) -> dict[str, list[str]]:
    """The account of a command line that Hydra gives under `hydra`."""
    parsed = OverridesParser.create().parse_overrides(list(settings))
    of = {
        by_hydra: [str(o.input_line) for o in parsed if o.is_hydra_override() is by_hydra] for by_hydra in (True, False)
    }
    return {"overrides.hydra": of[True], "overrides.task": of[False]}


def _refuse_strangers(config: Mapping[str, Any], *, defaults: Mapping[str, Any]) -> None:
    """Refuse settings that nothing reads, also behind a `+`, and texts where a number belongs."""
    for key in set(config) - set(defaults):
        near = difflib.get_close_matches(key, list(defaults), n=1)
        raise ValueError(f"there is no setting {key}" + (f": did you mean {near[0]}?" if near else "."))
    numbers = {key: value for key, value in flatten(defaults) if isinstance(value, (int, float))}
    for key, value in flatten(config):
        if key in numbers and isinstance(value, str):
            what = "true or false" if isinstance(numbers[key], bool) else f"a number like {numbers[key]}"
            raise ValueError(f"{key} is '{value}', and must be {what}.")


def _not_swept(settings: list[str]) -> str:
    """Tells Hydra which settings are no axes of a multirun, wherever its launcher runs the jobs."""
    parsed = OverridesParser.create().parse_overrides(settings)
    fixed = ",".join(f"'{o.key_or_group}'" for o in parsed if not o.is_sweep_override())
    return f"hydra.job.config.override_dirname.exclude_keys=[{fixed}]"
