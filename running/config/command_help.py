"""What --help of a verb prints: what it does, with examples, from its docstring; its settings, from the comments of conf/."""

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

_WIDTH = 36  # characters of a setting, before what is said of it
_FLAGS = '''
Flags stand before all settings: -m makes a job of each choice (seed=1,2); --cfg job shows every setting, those of the groups too;
--config-dir names a folder with further configs; --version and --hydra-help are what they are called.
Tab completion for this shell: eval "$(python {verb}.py -sc install=bash)"'''


class Setting(NamedTuple):
    """One setting of a verb."""

    key: str
    default: str  # of the command without any settings
    meaning: str  # the comment behind it


def command_help(verb: str) -> str:
    """All of it, as it is printed."""
    parts = [_docstring(verb)]
    for config in _configs(verb):
        parts.append(f"Settings of conf/{config}.yaml, as key=value:")
        parts += [f"  {f'{s.key}={s.default}':<{_WIDTH}}  {s.meaning}" for s in list_settings(config)]
        if groups := _groups(config):
            parts.append(f"\nGroups of settings, files in conf/; python {verb}.py --cfg job shows what is in them:")
            parts += [f"  {f'{name}={default}':<{_WIDTH}}  or {', '.join(others)}" for name, default, others in groups]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n" + _FLAGS.format(verb=verb)


def version() -> str:
    """Ours, of which Hydra's parser prints its own."""
    project = tomllib.loads(CONF.with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['name']} {project['version']}"


def list_settings(config: str) -> list[Setting]:
    """Every setting of a command's conf/<config>.yaml with the default that it has once all groups are composed."""
    composed = _composed(config)[0]
    return [s._replace(default=_default(s, composed)) for s in written_settings(config)]


def written_settings(config: str) -> list[Setting]:
    """Every setting that conf/<config>.yaml has, as it is written there, except what it tells Hydra."""
    text = (CONF / f"{config}.yaml").read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return [
        s for key, node in root.value if key.value not in ("defaults", "hydra") for s in _leaves(text, key.value, node)
    ]


@cache
def _composed(config: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(settings, what is chosen of each group) of a command without any settings."""
    with composing(CONF, config, config):
        whole = compose(config, return_hydra_config=True)
        choices = {key: choice for key, choice in whole.hydra.runtime.choices.items() if isinstance(choice, str)}
        return to_dict(compose(config)), choices


def _default(setting: Setting, composed: Mapping[str, Any]) -> str:
    """A setting's value, written as conf/ has it where that is the same."""
    value: Any = composed
    for part in setting.key.split("."):
        value = value[part]
    if isinstance(value, dict):
        value = {key: inner for key, inner in value.items() if key != "_target_"}
    if yaml.safe_load(setting.default) == value:
        return setting.default
    if isinstance(value, list):  # in one line
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


def _configs(verb: str) -> list[str]:
    """The config of a verb, and those that it is made of."""
    defaults = yaml.safe_load((CONF / f"{verb}.yaml").read_text(encoding="utf-8"))["defaults"]
    return [verb, *(name for name in defaults if isinstance(name, str) and name != "_self_")]


def _groups(config: str) -> list[tuple[str, str, list[str]]]:
    """(group, what is chosen, what else there is) of a config."""
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


def _docstring(verb: str) -> str:
    docstring = ast.get_docstring(ast.parse(CONF.with_name(f"{verb}.py").read_text(encoding="utf-8")), clean=False)
    assert docstring
    return docstring.rstrip() + "\n"
