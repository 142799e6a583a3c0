"""Paths, names and prompts as they are typed, made fit for Hydra, which reads numbers, commas, brackets and quotes in them."""

import re
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException

from running.config.compose import CONF, hydra_quoted
from running.config.path_and_name_settings import PROMPTS, expand_home, is_name, is_path

_LISTS = {"runs", "mix_law", "held_out"}  # several paths, with or without brackets
_NO_AXES = {"name", "runs_dir", "run_dir", "sweep_dir"}  # a multirun has one of each
_NO_CHOICES = re.compile(
    r"[^\w./,*?:+@%~-]"
)  # the runs of a sweep have = and , in their names: such a text is one path
_SYNTAX = re.compile(r"[()\[\]{}$'\"\\]")  # in the place of a config's name, Hydra's own


def quote_text_settings(arguments: list[str]) -> list[str]:
    """The same arguments, with texts, paths and names quoted where Hydra would read something else than was typed.

    `null`, `${…}`, and what stands in quotes of its own, are left to Hydra. With -m, commas separate choices of a path.
    """
    is_multirun = any(argument == "-m" or argument.startswith("--mu") for argument in arguments)
    return [_quoted(argument, is_multirun=is_multirun) for argument in arguments]


def unquote_text_settings(argument: str) -> str:
    """The inverse of `quote_text_settings`: a setting that Hydra has read, as a user types it (a prompt has no quotes)."""
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
    has_choices = is_multirun and setting not in _NO_AXES and last != "path" and not _NO_CHOICES.search(text)
    return f"{key}={(_each if has_choices else _one)(text, is_path=is_path(setting))}"


def _each(text: str, *, is_path: bool) -> str:
    return ",".join(_one(part, is_path=is_path) for part in text.split(","))


def _one(text: str, *, is_path: bool) -> str:
    """Quoted, unless Hydra reads the same text without quotes; of a path `~` is the home folder."""
    if is_path:
        text = expand_home(text)
    return text if _read(text) == text else hydra_quoted(text)


def _is_quoted(text: str) -> bool:
    """Whether it is quoted for Hydra, alone or as choices."""
    value = _read(text) if text[:1] in ("'", '"') else None
    return all(isinstance(part, QuotedString) for part in (value.list if isinstance(value, ChoiceSweep) else [value]))


def _read(text: str) -> object:
    """What Hydra reads; None: it cannot."""
    try:
        return OverridesParser.create().parse_override(f"key={text}")._value
    except HydraException:
        return None


@cache
def _groups() -> set[str]:
    return {folder.name for folder in CONF.iterdir() if folder.is_dir()}
