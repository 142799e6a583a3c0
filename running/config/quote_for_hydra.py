"""Quote paths, names and prompts as Hydra needs.

Without quotes, Hydra would interpret numbers, commas, brackets and quotes in them.
"""

import re
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException

from gpt_lightning.setting_roles import Role, has_role
from running.config.compose import CONF, hydra_quoted
from running.config.path_and_name_settings import PROMPTS, expand_home, is_name, is_path

_LISTS = {"runs", "mix_law", "held_out"}  # several paths, with or without brackets
# Runs of a sweep have = and , in their names. A text with = is one path, not several choices.
_NO_CHOICES = re.compile(r"[^\w./,*?:+@%~-]")
_SYNTAX = re.compile(r"[()\[\]{}$'\"\\]")  # Hydra's syntax, where the name of a config is expected


def quote_text_settings(arguments: list[str]) -> list[str]:
    """Quote texts, paths and names that Hydra would read differently from what was typed.

    `null`, `${…}`, and values that are already quoted stay unchanged. With -m, commas separate the choices of a path.

    Args:
        arguments: the command line after the script's name.

    Returns:
        The arguments, in the same order.
    """
    is_multirun = any(argument == "-m" or argument.startswith("--mu") for argument in arguments)
    return [_quoted(argument, is_multirun=is_multirun) for argument in arguments]


def unquote_text_settings(argument: str) -> str:
    """The inverse of `quote_text_settings`: from a setting as Hydra reads it to what a user types (prompts have no
    quotes).

    Args:
        argument: one setting, `key=value`.
    """
    key = argument.partition("=")[0]
    if key.lstrip("+") not in PROMPTS:
        return argument
    text = str(OverridesParser.create().parse_override(argument).value()).replace("\\${", "${")
    return f"{key}={text}"


def _quoted(argument: str, *, is_multirun: bool) -> str:
    key, equals, text = argument.partition("=")
    setting = key.lstrip("+")
    last = setting.rpartition(".")[2]
    if setting in PROMPTS and equals:
        return f"{key}={hydra_quoted(text)}"
    if text.lower() in ("", "null") or argument.startswith("-") or _is_quoted(text):
        return argument
    if setting in _groups():
        return argument if _SYNTAX.search(text) else f"{key}={_each(text, is_path=False)}"
    if not (is_path(setting) or is_name(setting)):
        return argument
    if (re.search(r"\$\{.+\}", text) and "=" not in text) or (setting == "data" and text[0] == "{"):
        return argument
    if setting in _LISTS and (text[0] + text[-1] == "[]" or ("," in text and not set(text) & set("=["))):
        inner = text[1:-1] if text[0] == "[" else text
        return (
            argument
            if set(inner) & set('=["') or inner.count("'") % 2 == 0 < inner.count("'")
            else f"{key}=[{_each(inner, is_path=True)}]"
        )
    # a multirun has one name and one of each folder
    has_choices = is_multirun and not has_role(setting, Role.PLACE) and last != "path" and not _NO_CHOICES.search(text)
    return f"{key}={(_each if has_choices else _one)(text, is_path=is_path(setting))}"


def _each(text: str, *, is_path: bool) -> str:
    return ",".join(_one(part, is_path=is_path) for part in text.split(","))


def _one(text: str, *, is_path: bool) -> str:
    """Quote a text, unless Hydra reads the same text without quotes. In a path, `~` is expanded."""
    if is_path:
        text = expand_home(text)
    return text if _read(text) == text else hydra_quoted(text)


def _is_quoted(text: str) -> bool:
    """Whether the user quoted the text for Hydra, as one value or as several choices."""
    value = _read(text) if text[:1] in ("'", '"') else None
    return all(isinstance(part, QuotedString) for part in (value.list if isinstance(value, ChoiceSweep) else [value]))


def _read(text: str) -> object:
    """The value that Hydra reads; None if it cannot parse the text."""
    try:
        return OverridesParser.create().parse_override(f"key={text}")._value
    except HydraException:
        return None


@cache
def _groups() -> set[str]:
    return {folder.name for folder in CONF.iterdir() if folder.is_dir()}
