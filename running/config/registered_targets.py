"""Registered classes and functions, which a config may name with `_target_`. See `running.registration`."""

from typing import Any

REGISTERED_TARGETS: dict[str, dict[str, Any]] = {"optimizer": {}, "callback": {}, "source reader": {}}
"""Kind -> dotted name -> the class or function."""


def register_target(kind: str, part: Any) -> str:
    """Allow a config to name a class or function with `_target_`.

    Args:
        kind: a key of REGISTERED_TARGETS.
        part: the class or function.

    Returns:
        The dotted name of `part`.

    Raises:
        ValueError: `part` is not at the top level of a module (a lambda, for example), or the name is already
            registered.
    """
    name, registered = f"{part.__module__}.{part.__qualname__}", REGISTERED_TARGETS[kind]
    if "<" in name:
        raise ValueError(f"{kind} {name}: it must be a class or function at the top level of a module.")
    if registered.setdefault(name, part) is not part:
        raise ValueError(f"{kind} {name} is already registered: give yours another name.")
    return name
