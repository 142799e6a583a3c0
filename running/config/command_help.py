"""Text of `--help`: a command's docstring with examples, and its settings with the comments in conf/."""

import ast
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import yaml
from hydra import compose

from running.config.compose import CONF, composing, group_choices, to_dict

_WIDTH = 36  # characters reserved for `setting=default`
_FLAGS = '''
Flags come before all settings: -m runs one job for each combination of values (seed=1,2); --cfg job prints the complete config;
--config-dir adds a folder with your own configs; --version prints the version; --hydra-help prints Hydra's own help.
Tab completion for this shell: eval "$(python {command}.py -sc install=bash)"'''


class Setting(NamedTuple):
    """One setting of a command."""

    key: str
    default: str  # value without any command-line setting
    meaning: str  # the comment behind it in conf/


def command_help(command: str) -> str:
    """The complete help text of a command."""
    parts = [_docstring(command)]
    for config in _configs(command):
        parts.append(f"Settings of conf/{config}.yaml, as key=value:")
        parts += [f"  {f'{s.key}={s.default}':<{_WIDTH}}  {s.meaning}" for s in list_settings(config)]
        if groups := _groups(config):
            parts.append("\nGroups of settings. Each choice is a file in conf/<group>/; --cfg job prints its settings.")
            parts += [f"  {f'{name}={default}':<{_WIDTH}}  or {', '.join(others)}" for name, default, others in groups]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n" + _FLAGS.format(command=command)


def version() -> str:
    """Name and version of this project. (Hydra's parser would print the version of Hydra.)"""
    project = tomllib.loads(CONF.with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['name']} {project['version']}"


def list_settings(config: str) -> list[Setting]:
    """Every setting in conf/<config>.yaml, with the default after composition of all groups."""
    composed = _composed(config)[0]
    return [s._replace(default=_default(s, composed)) for s in written_settings(config)]


def written_settings(config: str) -> list[Setting]:
    """Every setting in conf/<config>.yaml as written there, except the sections `defaults` and `hydra`."""
    text = (CONF / f"{config}.yaml").read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return [
        s for key, node in root.value if key.value not in ("defaults", "hydra") for s in _leaves(text, key.value, node)
    ]


@cache
def _composed(config: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(composed settings, group -> choice) of a config without any command-line setting."""
    with composing([CONF], config, config):
        whole = compose(config, return_hydra_config=True)
        choices = {key: choice for key, choice in whole.hydra.runtime.choices.items() if isinstance(choice, str)}
        return to_dict(compose(config)), choices


def _default(setting: Setting, composed: Mapping[str, Any]) -> str:
    """The composed value of a setting, in the spelling of conf/ if that has the same value."""
    value: Any = composed
    for part in setting.key.split("."):
        value = value[part]
    if isinstance(value, dict):
        value = {key: inner for key, inner in value.items() if key != "_target_"}
    if yaml.safe_load(setting.default) == value:
        return setting.default
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return (
        yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False).removesuffix("\n...\n").strip()
    )


def _leaves(text: str, key: str, node: yaml.Node) -> Iterator[Setting]:
    children = {k.value: child for k, child in node.value} if isinstance(node, yaml.MappingNode) else {}
    if children and not (node.flow_style and "_target_" in children):
        for name, child in children.items():
            if name != "_target_":
                yield from _leaves(text, f"{key}.{name}", child)
        return
    default = text[node.start_mark.index : node.end_mark.index].strip()
    behind = text[node.end_mark.index :].split("\n", 1)[0]
    yield Setting(key, re.sub(r"_target_: [\w.]+(, )?", "", default), behind.partition("#")[2].strip())


def _configs(command: str) -> list[str]:
    """The config of a command and the configs of other commands that it includes."""
    defaults = yaml.safe_load((CONF / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    return [command, *(name for name in defaults if isinstance(name, str) and name != "_self_")]


def _groups(config: str) -> list[tuple[str, str, list[str]]]:
    """(group, default choice, other choices) of each group of a config."""
    defaults = yaml.safe_load((CONF / f"{config}.yaml").read_text(encoding="utf-8"))["defaults"]
    groups = []
    for entry in defaults:
        name, chosen = next(iter(entry.items())) if isinstance(entry, dict) else (entry, "")
        if name in ("_self_", *_configs(config)) or name.startswith("override "):
            continue
        taken = chosen if isinstance(chosen, list) else [chosen]
        if not isinstance(chosen, list):
            taken = [chosen := _composed(config)[1].get(name, chosen)]
        shown = f"[{','.join(taken)}]" if isinstance(chosen, list) else chosen or "null"
        groups.append((name, shown, [other for other in group_choices(name) if other not in taken]))
    return groups


def _docstring(command: str) -> str:
    docstring = ast.get_docstring(ast.parse(CONF.with_name(f"{command}.py").read_text(encoding="utf-8")), clean=False)
    assert docstring
    return docstring.rstrip() + "\n"
