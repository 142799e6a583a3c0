"""Compose conf/ and a command line to plain dicts. If this fails, the error is one sentence."""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from running.config.bounded_yaml_files import CONF, bounded_files, check_yaml_file
from running.config.composed_run import chosen_config, read_configs_from
from running.config.init_from_architecture import init_from_settings
from running.config.misspelt_settings import misspelling, nearest_key
from running.config.path_and_name_settings import PROMPTS, expand_home, is_name, is_path
from running.config.resolvers import micro_batch_up_to, vocab_size_at_least

_WHOLE_CONFIG = """defaults: [override hydra/hydra_logging: disabled, override hydra/job_logging: disabled, _self_]
hydra: {output_subdir: null, run: {dir: .}}
"""
_PACKAGES = {
    "hydra/launcher": ". submitit_slurm and submitit_local need pip install -e '.[slurm]'; joblib, hydra-joblib-launcher",
    "hydra/sweeper": ". optuna needs pip install -e '.[optuna]'",
}
_NUMBER = re.compile(r"[-+]\.\d[\d_]*([eE][-+]?\d+)?|\.\d[\d_]*[eE]\d+")
# sections whose keys the user chooses
_OPEN = (
    r"curriculum\.(keyframes|keyframes\.\w+\.weights|mixes|mixes\.\w+|max_epochs|replay|policy)"
    r"|data\.limit_tokens|mix\.(weights|prior)"
)


def compose_config(config_name: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The config that a command gets from this command line; for tests and notebooks.

    Args:
        config_name: name of the command, such as train.
        overrides: settings, `key=value` each.

    Returns:
        The config as nested dicts.

    Raises:
        ValueError: an override names no setting or choice, or cannot be parsed.
    """
    settings = list(overrides)
    with composing([CONF], config_name, config_name):
        return to_dict(compose(config_name, [*settings, *init_from_settings(settings)]))


@contextmanager
def composing(folders: Sequence[Path], config_name: str, command: str) -> Iterator[None]:
    """Let Hydra compose the config of a command from folders.

    Args:
        folders: absolute paths of the folder with the main config, and of that of `--config-dir`, if given.
        config_name: name of the main config, without .yaml.
        command: name of the command.

    Raises:
        ValueError: the config cannot be composed. The message is one sentence.
    """
    with bounded_files(), initialize_config_dir(str(folders[0]), job_name=command, version_base=None):
        read_configs_from(folders)
        try:
            yield
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_one_sentence(error, config_name)) from error
        except YAMLError as error:
            raise ValueError(
                f"a config is not valid YAML, or contains something other than plain values: {' '.join(str(error).split())}."
            ) from error


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write a complete config that a command reads with `train.py --config-path <folder> --config-name <stem>`."""
    path.write_text(_WHOLE_CONFIG + OmegaConf.to_yaml(OmegaConf.create(dict(config))), encoding="utf-8")


def read_config(path: Path) -> dict[str, Any]:
    """The config that a run recorded, as plain dicts and lists. Interpolations stay unresolved.

    Raises:
        ValueError: the file is not YAML, contains something other than plain values, or contains no settings.
    """
    check_yaml_file(path)
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid YAML, or contains something other than plain values: {' '.join(str(error).split())}."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains {type(content).__name__}: it must contain settings (key: value).")
    return {str(key): value for key, value in content.items()}


def path_of(config: Mapping[str, Any], key: str) -> Path:
    """The path that a setting holds, with `~` expanded to the home folder.

    Raises:
        ValueError: the value is null, a list, a number, or empty.
    """
    if not isinstance(config[key], str) or not config[key]:
        raise ValueError(f"{key} is {config[key]!r}: it must be a path.")
    return Path(expand_home(config[key]))


def user_folders() -> dict[str, Path]:
    """Config folders of the user, as typed on this process's command line: argument -> folder."""
    arguments = {"main": "--config-path", "command-line": "--config-dir"}
    sources: Sequence[Any] = ()
    if HydraConfig.initialized():
        hydra: Any = HydraConfig.get()
        sources = OmegaConf.select(hydra, "runtime.config_sources") or ()  # a process may have set a part of it only
    elif GlobalHydra.instance().is_initialized():  # the command line is being checked
        sources = GlobalHydra.instance().config_loader().get_search_path().get_path()
    paths = {arguments[source.provider]: source.path for source in sources if source.provider in arguments}
    folders = {argument: Path(path.removeprefix("file://")) for argument, path in paths.items()}
    return {argument: folder for argument, folder in folders.items() if folder != CONF}


def _choices(group: str) -> dict[str, Path]:
    """Name -> file of a group's configs. As in Hydra, --config-path comes before --config-dir."""
    folders = [*user_folders().values(), CONF]
    return {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}


def group_choices(group: str) -> list[str]:
    """The names of the configs in conf/<group>/ and in the user's config folders."""
    return sorted(_choices(group))


def list_choices(group: str) -> str:
    """For messages: each folder with configs of a group, and their names."""
    found = []
    for name, folder in {"conf": CONF, **{str(own): own for own in user_folders().values()}}.items():
        files = sorted(path.stem for path in (folder / group).glob("*.yaml"))
        further = sorted(f"{path.name}/…" for path in (folder / group).glob("*") if path.is_dir())
        if files or further:
            found.append(f"{name}/{group} has {', '.join([*files, *further])}")
    return "; ".join(found)


def read_choice(group: str, name: str) -> dict[str, Any]:
    """Content of <group>/<name>.yaml, for a choice that was not made on the command line."""
    path = choice_path(group, name)
    check_yaml_file(path)
    return to_dict(OmegaConf.load(path))


def choice_path(group: str, name: str) -> Path:
    """The file of a group's config, in conf/<group>/ or in the user's config folders.

    Raises:
        ValueError: there is no such file.
    """
    choices = _choices(group)
    if name not in choices:
        raise ValueError(f"there is no {group} {name}; {list_choices(group)}.")
    return choices[name]


def to_dict(config: Any) -> dict[str, Any]:
    """Resolve a composed config into plain dicts and lists.

    A config may use the resolvers `micro_batch_up_to` (`micro_batch: ${micro_batch_up_to:64}`) and
    `vocab_size_at_least`. A `schedule.warmup_steps` between 0 and 1 is a fraction of `max_steps` and is converted
    to steps.

    Raises:
        ValueError: a value is missing, or refers to a setting that does not exist.
    """
    OmegaConf.register_new_resolver("micro_batch_up_to", micro_batch_up_to, replace=True)
    OmegaConf.register_new_resolver("vocab_size_at_least", vocab_size_at_least, replace=True)
    try:
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ValueError(
            misspelling(dict(flatten(OmegaConf.to_container(config))), user_folders().values())
            or f"the setting {error.full_key} has no value."
        ) from error
    except OmegaConfBaseException as error:
        raise ValueError(f"the setting {error.full_key} has no value: {str(error).splitlines()[0]}.") from error
    assert isinstance(content, dict)
    config = {str(key): _meant(value, str(key)) for key, value in content.items()}
    schedule, steps = config.get("schedule"), config.get("max_steps")
    share = schedule.get("warmup_steps") if isinstance(schedule, dict) else None
    if isinstance(schedule, dict) and isinstance(share, float) and 0 < share < 1 and isinstance(steps, int):
        schedule["warmup_steps"] = min(round(share * steps), steps - 1)  # always below max_steps
    return config


def _meant(value: Any, key: str) -> Any:
    """Convert a value under `key`: expand `~` in paths, and parse numbers such as -.5, which YAML reads as strings."""
    if isinstance(value, dict):
        return {k: _meant(v, f"{key}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [expand_home(v) if isinstance(v, str) and is_path(key) else v for v in value]
    if not isinstance(value, str):
        return value
    if is_path(key):
        return expand_home(value)
    is_number = _NUMBER.fullmatch(value) and not (is_name(key) or key in PROMPTS)
    return float(value) if is_number else value


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf of nested dicts. A list is a leaf."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def hydra_quoted(text: str) -> str:
    """Quote a text so that Hydra reads it unchanged from a command line."""
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text.replace("${", "\\${"))
    return f'"{escaped}"'


def typed(key: str, path: str | Path) -> str:
    """A setting whose value is a path, quoted for a shell."""
    text = str(path)
    # a path with = stays as it is, because quote_for_hydra.quote_text_settings quotes it
    as_it_is = re.fullmatch(r"[\w./~+*-]+", text) or ("=" in text and text[0] not in "\"'[")
    return f"{key}={shlex.quote(text if as_it_is else hydra_quoted(text))}"


def _one_sentence(error: Exception, config_name: str) -> str:
    """What is wrong with the command line, with the nearest correct spelling."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines[0].startswith("Could not override '"):
        key = lines[0].split("'")[1]
        parent, _, name = key.rpartition(".")
        if re.fullmatch(_OPEN, key):
            return f"some of these names are not in {key} yet: add each of them with +{key}.<name>=…."
        if re.fullmatch(_OPEN, parent):
            siblings = [sibling for sibling in _all_keys(config_name) if sibling.rpartition(".")[0] == parent]
            meant = difflib.get_close_matches(key, siblings, n=1, cutoff=0.95)
            return (
                f"{parent} has no {name} yet: "
                + (f"did you mean {meant[0]}, or " if meant else "")
                + f"add it with +{key}=…."
            )
        of_source = re.fullmatch(r"sources\.(\w+)\.(\w+)", key)
        if of_source and of_source[1] in group_choices("source"):
            there = read_choice("source", of_source[1]).get(of_source[2])
            if isinstance(there, dict):
                parts = ", ".join(f"{key}.{part}=…" for part in there)
                other, name = ("text", "a text") if "messages" in there else ("messages", "conversations")
                whole = " ".join(f"{key}.{part}=null" for part in there)
                return (
                    f"{key} cannot be set as a whole: set {parts}. To replace these fields, for example by {name}, "
                    f"type {whole} +{key}.{other}={other}."
                )
        if key == "source" and (typed_name := re.search(r"\+source=(\w+)", str(error))):
            curriculum = compose(config_name).curriculum
            mix, keyframe = (next(iter(curriculum[of]), None) for of in ("mixes", "keyframes"))
            place = f"mixes.{mix}" if mix else f"keyframes.{keyframe}.weights"
            return (
                f"there is no setting source: the curriculum names the sources, "
                f"for example +curriculum.{place}.{typed_name[1]}=1."
            )
        if near := nearest_key(key, _all_keys(config_name)):
            return f"there is no setting {key}: did you mean {near}?"
        if new := re.match(r"callbacks\.(\w+)|imports$", key):
            return f"{'callbacks' if new[1] else 'the config'} has no {new[1] or key} yet: add it with +{key}=…."
        return f"there is no setting {key} in conf/{config_name}.yaml."
    if no_such_choice := re.search(r"Could not find '(.+)/(.+?)'", lines[0]):
        group, choice = no_such_choice.groups()
        if group.startswith("hydra/"):
            others = ", ".join(re.findall(r"^\t(\S+)$", str(error), flags=re.MULTILINE))
            return f"{group}={choice}: there is no such choice; the choices are {others}{_PACKAGES.get(group, '')}."
        own = f"; for your own texts, type source=local name={choice} path=…" if group == "source" else ""
        return f"{group}={choice}: there is no such choice; {list_choices(group)}{own}."
    return " ".join(lines[:2]).rstrip(".") + "."


def _all_keys(config_name: str) -> list[str]:
    """Every setting of the files that the command line chose, and every group."""
    chosen = chosen_config() or compose(config_name)
    keys = [key for key, _ in flatten(OmegaConf.to_container(chosen))]
    parents = {key.rpartition(".")[0] for key in keys}
    return [*(path.name for path in CONF.iterdir() if path.is_dir()), *keys, *sorted(parents)]
