"""What the verbs share: the command line, allow-listed instantiation, errors in one sentence, jobs of a multirun.

A verb is a file like train.py: a plain function of a dict, and a shell of @hydra.main around it. Hydra and OmegaConf end
here; what goes on to the packages are dicts, dataclasses and objects.
"""

import difflib
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONF = Path(__file__).resolve().parent / "conf"
ALLOWED_TARGETS: tuple[str, ...] = (
    "bitsandbytes.optim.",
    "callbacks.",
    "data_modules.",
    "gpt_lightning.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "torch.optim.",
)
TEXTS = {"prompt"}  # settings that hold ordinary text
PATHS = {
    "run",
    "input",
    "output",
    "init_from",
    "branch.run",
    "data_dir",
    "runs_dir",
}  # a sweep's runs have = and , in their names
_WHOLE_CONFIG = """defaults: [override hydra/hydra_logging: disabled, override hydra/job_logging: disabled, _self_]
hydra: {output_subdir: null, run: {dir: .}}
"""
# sections whose keys are names of the user's
_OPEN = r"curriculum\.(keyframes|keyframes\.\w+\.weights|mixes|mixes\.\w+|max_epochs|replay)|data\.limit_tokens"
_failed_jobs: list[str] | None = None  # of the multirun that this process started


def start(hydra_main: Callable[[], None], config_name: str) -> None:
    """Run a verb: check the command line first, so that a typo costs one sentence and not a page."""
    global _failed_jobs
    _failed_jobs = []
    sys.argv[1:] = quote_texts(sys.argv[1:])
    try:
        check_command_line(config_name, sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    if {"-m", "--multirun"} & set(sys.argv):
        sys.argv.append(_not_swept(sys.argv[1:]))
    hydra_main()
    if _failed_jobs:
        sys.exit("error: " + f"{len(_failed_jobs)} of the jobs failed: {', '.join(_failed_jobs)}.")


def run(verb: Callable[[dict[str, Any]], Any], config: DictConfig) -> None:
    """Call a verb with its config as a plain dict; as a job of a multirun, in a process of its own.

    A ValueError or OSError is an answer to the user and becomes one sentence; GPT_LIGHTNING_TRACEBACK=1 shows the rest.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        _run_as_process(config)
        return
    try:
        verb(to_dict(config))
    except Exception as error:
        if code := getattr(error, "exit_code", None):  # an end in good order, of which the run has said all
            sys.exit(code)
        if not isinstance(error, (ValueError, OSError)):
            raise
        if os.environ.get("GPT_LIGHTNING_TRACEBACK"):
            traceback.print_exc()
        sys.exit(f"error: {error}")


def quote_texts(arguments: list[str]) -> list[str]:
    """The same arguments, with ordinary text as it is typed made fit for Hydra, which reads commas, brackets and quotes."""
    quoted = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        is_text = key in TEXTS or (key.rpartition(".")[2] == "path" and text[:1] not in ("", '"', "'"))
        if equals and (is_text or (key in PATHS and "=" in text and text[0] not in "\"'")):
            escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text.replace("${", "\\${"))
            argument = f'{key}="{escaped}"'
        quoted.append(argument)
    return quoted


def compose_config(config_name: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The config that a verb would get from this command line; for tests and notebooks.

    Raises:
        ValueError: an override names nothing, or cannot be read.
    """
    with initialize_config_dir(str(CONF), version_base=None):
        try:
            return to_dict(compose(config_name, list(overrides)))
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_one_sentence(error, config_name)) from error


def check_command_line(config_name: str, arguments: list[str]) -> None:
    """Compose once what the arguments ask for; of a sweep, each choice of each axis.

    Raises:
        ValueError: as `compose_config`; or a setting is none, or a text stands where a number belongs.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if "=" not in argument and not argument.startswith(("-", "~")) and not before.startswith("-"):
            raise ValueError(f"'{argument}' says nothing: settings are written key=value.")
    settings = [argument for argument in arguments if "=" in argument and not argument.startswith("--")]
    try:
        parsed = OverridesParser.create().parse_overrides(settings)
    except HydraException as error:
        raise ValueError(
            f"the command line cannot be read: {str(error).splitlines()[0]}. Signs such as <|[]=, need quotes inside quotes: "
            "'stop=[\"<|im_end|>\"]'."
        ) from error
    if any(o.is_sweep_override() for o in parsed) and not {"-m", "--multirun"} & set(arguments):
        raise ValueError("choices separated by commas (a=1,2) need a multirun: add -m after the file's name.")
    choices = [
        [f"{o.get_key_element()}={choice}" for choice in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    first = [texts[0] for texts in choices]
    others = ([*first[:n], text, *first[n + 1 :]] for n, texts in enumerate(choices) for text in texts[1:])
    for job in [first, *others]:
        groups = [text for text, o in zip(job, parsed, strict=True) if (CONF / o.key_or_group).is_dir()]
        _refuse_strangers(compose_config(config_name, job), defaults=compose_config(config_name, groups))


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write a config that a verb takes whole: `train.py --config-path <folder> --config-name <stem>`."""
    path.write_text(_WHOLE_CONFIG + OmegaConf.to_yaml(OmegaConf.create(dict(config))), encoding="utf-8")


def path_of(config: Mapping[str, Any], key: str) -> Path:
    """A setting that says where something lies.

    Raises:
        ValueError: it is null, a list, or a number.
    """
    if not isinstance(config[key], str):
        raise ValueError(f"{key} is {config[key]!r}: it must be a path.")
    return Path(config[key])


def group_choices(group: str) -> list[str]:
    """The names of the configs in conf/<group>/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def read_choice(group: str, name: str) -> dict[str, Any]:
    """conf/<group>/<name>.yaml by itself, where a verb needs one that the command line did not choose."""
    return to_dict(OmegaConf.load(CONF / group / f"{name}.yaml"))


def to_dict(config: Any) -> dict[str, Any]:
    """A resolved config as plain dicts and lists.

    Raises:
        ValueError: a value is missing, or refers to one that does not exist.
    """
    try:
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"the setting {error.full_key} has no value: {str(error).splitlines()[0]}.") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested dicts; a list is a leaf."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def instantiate(node: Mapping[str, Any], **kwargs: Any) -> Any:
    """Build what a config node's `_target_` names, if it may.

    Raises:
        ValueError: a target, here or in a node below, is not in the allow-list, or does not take these arguments.
    """
    for target in _targets(node):
        if not _allowed(str(target)):
            raise ValueError(
                f"_target_={target} may not be called from a config: allowed are {', '.join(ALLOWED_TARGETS)}."
            )
    try:
        return hydra_instantiate(OmegaConf.create(dict(node)), **kwargs, _convert_="all")
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, OSError)):
            raise cause from error
        raise ValueError(f"{node['_target_']} cannot be built: {cause or error}.") from error


def _allowed(target: str) -> bool:
    """Whether a target lies in an allowed package AND was written there: a package's modules import others' code too."""
    if not target.startswith(ALLOWED_TARGETS):
        return False
    try:
        return f"{get_object(target).__module__}.".startswith(ALLOWED_TARGETS)
    except (AttributeError, ImportError, ValueError):
        return False


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _refuse_strangers(config: Mapping[str, Any], *, defaults: Mapping[str, Any]) -> None:
    """Refuse settings that nothing reads, also behind a `+`, and texts where a number belongs."""
    for key in set(config) - set(defaults):
        near = difflib.get_close_matches(key, list(defaults), n=1)
        raise ValueError(f"there is no setting {key}" + (f": did you mean {near[0]}?" if near else "."))
    numbers = {key: value for key, value in flatten(defaults) if isinstance(value, (int, float))}
    for key, value in flatten(config):
        if key in numbers and isinstance(value, str):
            raise ValueError(f"{key} is '{value}', and must be a number like {numbers[key]}.")


def _run_as_process(config: DictConfig) -> None:
    """One job of a multirun, in a directory named by its place on the axes; nothing of the job before it can linger."""
    hydra = HydraConfig.get()
    fixed = hydra.job.config.override_dirname.exclude_keys
    axes = [override for override in hydra.overrides.task if override.split("=")[0].lstrip("+") not in fixed]
    job = re.sub(r"[^\w.,=+-]", "_", ",".join(axes)) or f"job={hydra.job.num}"
    command = [sys.executable, str(CONF.parent / f"{hydra.job.name}.py"), *hydra.overrides.task]
    if "run_dir" in config:
        command.append(f"run_dir='{config.sweep_dir}/{job}'")
    print(f"── job {hydra.job.num}: {job}", flush=True)
    if subprocess.run(command, check=False).returncode:
        if _failed_jobs is None:  # a launcher of Hydra runs the job elsewhere, and waits to be told
            raise RuntimeError(f"job {job} failed")
        _failed_jobs.append(job)


def _not_swept(arguments: list[str]) -> str:
    """Tells Hydra which settings are no axes of a multirun, wherever its launcher runs the jobs."""
    parsed = OverridesParser.create().parse_overrides([a for a in arguments if "=" in a and not a.startswith("--")])
    fixed = ",".join(f"'{o.key_or_group}'" for o in parsed if not o.is_sweep_override())
    return f"hydra.job.config.override_dirname.exclude_keys=[{fixed}]"


def _one_sentence(error: Exception, config_name: str) -> str:
    """What is wrong with the command line, with the nearest right spelling."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines[0].startswith("Could not override '"):
        key = lines[0].split("'")[1]
        parent, _, name = key.rpartition(".")
        if re.fullmatch(_OPEN, key):
            return f"{key} has not all of these names yet: add new ones one by one, +{key}.<name>=…."
        if re.fullmatch(_OPEN, parent):
            siblings = [sibling for sibling in _all_keys(config_name) if sibling.rpartition(".")[0] == parent]
            meant = difflib.get_close_matches(key, siblings, n=1, cutoff=0.95)
            return (
                f"{parent} has no {name} yet: "
                + (f"did you mean {meant[0]}, or " if meant else "")
                + f"add it with +{key}=…."
            )
        near = difflib.get_close_matches(key, _all_keys(config_name), n=1)
        return f"there is no setting {key}" + (
            f": did you mean {near[0]}?" if near else f" in conf/{config_name}.yaml."
        )
    if no_such_choice := re.search(r"Could not find '(.+)/(.+?)'", lines[0]):
        group, choice = no_such_choice.groups()
        return f"{group}={choice}: there is no such choice; conf/{group} has {', '.join(group_choices(group))}."
    return " ".join(lines[:2]).rstrip(".") + "."


def _all_keys(config_name: str) -> list[str]:
    """Every setting and every group that a command line may name."""
    keys = [key for key, _ in flatten(OmegaConf.to_container(compose(config_name)))]
    parents = {key.rpartition(".")[0] for key in keys}
    return [*(path.name for path in CONF.iterdir() if path.is_dir()), *keys, *sorted(parents)]
