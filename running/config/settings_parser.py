"""Parse composed settings into frozen dataclasses, whose annotations define the valid values."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from running.config.path_and_name_settings import expand_home

T = TypeVar("T")


@dataclass(frozen=True)
class AtLeast:
    """Lower bound of a whole number."""

    lowest: int


@dataclass(frozen=True)
class Range:
    """Bounds of a number."""

    contains: Callable[[float], bool]
    described: str
    """Completes "it must be …"."""


Count = Annotated[int, AtLeast(1)]
CountOrZero = Annotated[int, AtLeast(0)]
PositiveNumber = Annotated[float, Range(lambda value: 0 < value < math.inf, "a number above 0")]
NumberOrZero = Annotated[float, Range(lambda value: 0 <= value < math.inf, "a number, 0 or more")]
Fraction = Annotated[float, Range(lambda value: 0 < value <= 1, "a number above 0 and at most 1")]
Share = Annotated[float, Range(lambda value: 0 <= value < 1, "a number, 0 or more and below 1")]


def parse(kind: type[T], settings: Any, *, name: str = "") -> T:
    """Build a frozen dataclass, and the dataclasses nested in it, from a group of settings.

    Args:
        kind: the dataclass. Annotations may be int, float, bool, str, Path, Literal, Annotated[int, AtLeast(…)], a
            dataclass, or one or more of these and None. Values with other annotations are not checked here, but by
            the dataclass.
        settings: key -> value.
        name: dotted name of the group. "" means the settings of a command: unknown keys are then ignored, because the
            command line was checked before and a user's own config may have further keys.

    Returns:
        The dataclass.

    Raises:
        ValueError: a setting is unknown or missing, its value does not match its annotation, or the dataclass rejects
            the value.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"{name} is {settings!r}: it must be a group of settings.")
    kinds, known = get_type_hints(kind, include_extras=True), {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    prefix = f"{name}." if name else ""
    if name:
        check_keys(kind, settings, name=name)
    for key, field in known.items():
        if key not in settings and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"the setting {prefix}{key} has no value.")
    return kind(**{key: _checked(kinds[key], settings[key], f"{prefix}{key}") for key in known if key in settings})


def check_keys(kind: type, settings: Iterable[Any], *, name: str) -> None:
    """Check that every key of a group of settings is a field of a dataclass.

    Args:
        kind: the dataclass.
        settings: the keys.
        name: dotted name of the group.

    Raises:
        ValueError: a setting is unknown.
    """
    known = [field.name for field in fields(kind)]
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ValueError(
                f"there is no setting {name}.{key}" + (f": did you mean {name}.{near[0]}?" if near else ".")
            )


def describe(annotation: Any) -> str:
    """What a value must be, as in error messages; "" if `parse` does not check the value.

    Args:
        annotation: annotation of a field.
    """
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    described = " or ".join(filter(None, (_test(kind)[1] for kind in kinds if kind is not NoneType)))
    return f"{described}, or null" if described and NoneType in kinds else described


def build_section(build: Callable[..., T], name: str, section: Mapping[str, Any], **more: Any) -> T:
    """Call `build(**section, **more)`. `build` is a class or function that checks its own arguments.

    Args:
        build: the class or function.
        name: dotted name of the section, for messages.
        section: settings of the section.
        more: further keyword arguments.

    Raises:
        ValueError: the section has an unknown key, or `build` raises a ValueError.
    """
    try:
        return build(**section, **more)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        near = difflib.get_close_matches(unknown[1], signature(build).parameters, n=1) if unknown else []
        raise ValueError(f"{name}: {error}" + (f": did you mean {near[0]}?" if near else ".")) from error


def _checked(annotation: Any, value: Any, name: str) -> Any:
    allowed = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if value is None and NoneType in allowed:
        return None
    wanted, *others = (one for one in allowed if one is not NoneType)
    if is_dataclass(wanted) and not isinstance(value, wanted):  # type: ignore[arg-type]
        return parse(wanted, value, name=name)  # type: ignore[arg-type]
    if not any(_test(one)[0](value) for one in (wanted, *others)):
        raise ValueError(f"{name} is {value!r}: it must be {describe(annotation)}.")
    return Path(expand_home(value)) if wanted is Path else value


def _test(wanted: Any) -> tuple[Any, str]:
    """(predicate of valid values, description of them) for an annotation."""
    if get_origin(wanted) is Annotated:
        _, bound = get_args(wanted)
        if isinstance(bound, Range):
            return lambda value: _is_number(value) and bound.contains(value), bound.described
        return lambda value: type(value) is int and value >= bound.lowest, f"a whole number, {bound.lowest} or more"
    if get_origin(wanted) is Literal:
        choices = get_args(wanted)
        described = " or ".join(choices) if len(choices) <= 2 else f"one of {', '.join(choices)}"
        return lambda value: type(value) is str and value in choices, described
    if wanted is Path:
        return lambda value: isinstance(value, str) and bool(value), "a path"
    kinds: dict[Any, tuple[Any, str]] = {
        int: (lambda value: type(value) is int, "a whole number"),
        float: (_is_number, "a number"),
        bool: (lambda value: isinstance(value, bool), "true or false"),
        str: (lambda value: isinstance(value, str), "a string"),
    }
    return kinds.get(wanted, (lambda value: True, ""))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
