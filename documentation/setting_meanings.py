"""Meaning and type of each setting, from the dataclass that parses it: the docstring and annotation of its field."""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml

import callbacks
from running.config.callback_configs import CALLBACK_CONFIGS
from running.config.compose import CONF
from running.config.logger_configs import LOGGER_CONFIGS
from running.config.optimization_configs import OPTIMIZER_OPTIONS, OptimizerConfig
from running.config.renamed_targets import target_of
from running.config.settings_parser import describe

_CONTAINERS = {dict: "a mapping", Mapping: "a mapping", list: "a list"}


class Description(NamedTuple):
    """What the reference says about a setting."""

    meaning: str
    """The docstring of its field, without the last period."""
    kind: str
    """Valid values, as error messages describe them; "" if the field allows any value."""


def describe_setting(configs: Iterable[type], key: str) -> Description | None:
    """Describe a setting by the field that holds it.

    Args:
        configs: Dataclasses that hold the settings of a command.
        key: Dotted name of the setting.

    Returns:
        The description; None if no field holds the setting.
    """
    section, *names = key.split(".")
    if names == ["_target_"]:
        return Description("Dotted name of the class", "a string")
    if section == "optimizer" and names:
        return describe_in([OptimizerConfig, *OPTIMIZER_OPTIONS.values()], names)
    if section == "logger" and names:
        return describe_in(LOGGER_CONFIGS.values(), names)
    if section == "callbacks" and names:
        target = _callback_targets()[names[0]]
        if len(names) > 1:
            return describe_in([CALLBACK_CONFIGS[target]], names[1:])
        return Description(first_sentence(getattr(callbacks, target.removeprefix("callbacks."))), "a callback")
    return describe_in(configs, [section, *names])


def describe_in(configs: Iterable[type], names: list[str]) -> Description | None:
    """Describe a setting by the first of some dataclasses that has it.

    Args:
        configs: The dataclasses.
        names: Parts of the dotted name, from a field of the dataclass on.
    """
    for config in configs:
        if names[0] in (docstrings := field_docstrings(config)):
            annotation = get_type_hints(config, include_extras=True)[names[0]]
            return _describe_value(annotation, docstrings[names[0]], names[1:])
    return None


@cache
def field_docstrings(config: type) -> dict[str, str]:
    """Field of a dataclass -> its docstring on one line, without the last period; "" if it has none."""
    found = {field.name: "" for field in fields(config)}
    for kind in reversed(config.__mro__[:-1]):
        body = ast.parse(inspect.cleandoc(inspect.getsource(kind))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, behind in zip(body.body, body.body[1:], strict=False):
            is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if is_field and isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant):
                text = " ".join(str(behind.value.value).split()).removesuffix(".")
                found[field.target.id] = re.sub(r"\bNone\b", "null", text)  # type: ignore[attr-defined]
    return found


def first_sentence(kind: type) -> str:
    """The first sentence of a class's docstring, without its period."""
    return re.split(r"\.(?:\s|$)", " ".join((kind.__doc__ or "").split()))[0]


def _describe_value(annotation: Any, meaning: str, names: list[str]) -> Description | None:
    """Describe a value, or what lies at `names` inside it."""
    or_null = ", or null" if NoneType in get_args(annotation) else ""
    for kind in _alternatives(annotation):
        if is_dataclass(kind) and isinstance(kind, type):
            return (
                describe_in([kind], names)
                if names
                else Description(meaning or first_sentence(kind), f"settings{or_null}")
            )
        if names and get_origin(kind) in (dict, Mapping):  # the first of the names is the user's choice
            return _describe_value(get_args(kind)[1], meaning, names[1:])
        if get_origin(kind) in _CONTAINERS:
            return Description(meaning, _CONTAINERS[get_origin(kind)] + or_null)
    return Description(meaning, describe(annotation))


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types of a union, without None."""
    is_union = get_origin(annotation) in (Union, UnionType)
    yield from (kind for kind in (get_args(annotation) if is_union else (annotation,)) if kind is not NoneType)


@cache
def _callback_targets() -> dict[str, str]:
    """Name of each callback in conf/ -> its class."""
    found: dict[str, str] = {}
    for path in CONF.rglob("*.yaml"):
        nodes = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("callbacks", {})
        found |= {name: target_of(node) for name, node in nodes.items() if target_of(node)}
    return found
